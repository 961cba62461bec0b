// Package erofs writes, mounts and verifies EROFS images that hold one layer
// each, uncompressed. The format is that of Linux, Documentation/filesystems/
// erofs.rst and fs/erofs/erofs_fs.h.
//
// # How an image is written
//
// A layer arrives as a stream, in an order that nobody chose, and a directory
// is whole only when the stream ends. So an image is a row of segments of
// 1 MiB, each of which holds either data (whole blocks of files, one file
// after the other) or metadata (inodes with their xattrs, small files and the
// last bytes of larger ones behind them), and the directories come last. Two
// segments are being filled, and a few more are on their way to the disk; each
// is written by one call when it is full. The
// root's inode has its place in the first block, since the superblock's
// pointer to it has only 16 bits.
//
// Parts of segments that were not needed are holes of the file.
//
// # Checksums
//
// The writer sums each segment (CRC-32C) while it has it in memory. Sums is
// kept beside the image, and Verify compares.
package erofs

import "hash/crc32"

const (
	blockBits = 12
	blockSize = 1 << blockBits
	// segmentSize is what is written at once, in bytes.
	segmentSize = 1 << 20

	superOffset = 1024
	superSize   = 128
	inodeSize   = 64
	// slotSize is the unit that inodes are numbered in.
	slotSize = 32
	// rootOffset is where the root's inode is, right behind the superblock.
	rootOffset = superOffset + superSize
	// maxTail is up to how many bytes the end of a file is put behind its
	// inode. Longer ends waste less in a block of their own.
	maxTail = 2048

	magic = 0xe0f5e1e2
	// compatChecksum says that the superblock's checksum is set, and
	// compatMtime that inodes have times.
	compatChecksum = 1
	compatMtime    = 2
	// incompatChunked says that there are files made of chunks.
	incompatChunked = 4

	layoutPlain  = 0
	layoutInline = 2
	layoutChunks = 4
	// nullBlock is the address of a chunk that is a hole.
	nullBlock = 0xffffffff
)

// File types in directory entries.
const (
	TypeRegular   = 1
	TypeDirectory = 2
	TypeCharacter = 3
	TypeBlock     = 4
	TypeFIFO      = 5
	TypeSymlink   = 7
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
