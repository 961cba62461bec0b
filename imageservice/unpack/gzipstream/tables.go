package gzipstream

import "math/bits"

// A decoding table is looked up by the next bits of input. An entry says how
// many of them are used up and what they mean:
//
//	literal      bit 31; the byte in bits 16 to 23
//	match        the length or distance's base in bits 16 to 30
//	end of block exceptional | endOfBlock
//	longer code  exceptional | subtable: the subtable's place in bits 16 to 30,
//	             how many further bits it is looked up by in bits 8 to 11
//	no code      exceptional
//
// Bits 0 to 7 are the bits used: the code's and, for a match, those that follow
// and are added to the base. Bits 8 to 12 are the code's alone.
const (
	literal     = 1 << 31
	exceptional = 1 << 15
	endOfBlock  = 1 << 14
	subtable    = 1 << 13
)

const (
	maxCode   = 15
	litBits   = 11
	distBits  = 8
	maxLits   = 288
	maxDists  = 32
	endSymbol = 256
	// Powers of two above what zlib's enough.c computes for the above, so
	// that an index can be masked: 2342 and 402.
	litEntries  = 4096
	distEntries = 512
)

// litMeaning and distMeaning are the entries of symbols, without the code's
// bits.
var (
	litMeaning  [maxLits]uint32
	distMeaning [maxDists]uint32
	// codeOrder is the order in which the lengths of the code length code
	// are sent.
	codeOrder = [19]byte{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

func init() {
	for i := range endSymbol {
		litMeaning[i] = literal | uint32(i)<<16
	}
	litMeaning[endSymbol] = exceptional | endOfBlock
	base := uint32(3)
	for i := range 29 {
		extra := uint32(max(i/4-1, 0))
		if i == 28 {
			base, extra = 258, 0
		}
		litMeaning[257+i] = base<<16 | extra
		base += 1 << extra
	}
	litMeaning[286], litMeaning[287] = exceptional, exceptional
	base = 1
	for i := range 30 {
		extra := uint32(max(i/2-1, 0))
		distMeaning[i] = base<<16 | extra
		base += 1 << extra
	}
	distMeaning[30], distMeaning[31] = exceptional, exceptional
}

// code is a Huffman code given by its lengths.
type code struct {
	count [maxCode + 1]int
	// sorted are the symbols by length, then by number.
	sorted [maxLits]uint16
	used   int
}

// newCode checks lengths: a code must be complete, or be of one symbol of one
// bit.
func newCode(lengths []byte) (c code, ok bool) {
	for _, l := range lengths {
		c.count[l]++
	}
	c.used = len(lengths) - c.count[0]
	var next [maxCode + 2]int
	left := 1
	for l := 1; l <= maxCode; l++ {
		left = left<<1 - c.count[l]
		if left < 0 {
			return c, false
		}
		next[l+1] = next[l] + c.count[l]
	}
	for symbol, l := range lengths {
		if l > 0 {
			c.sorted[next[l]] = uint16(symbol)
			next[l]++
		}
	}
	return c, left == 0 || c.used == 0 || c.used == 1 && c.count[1] == 1
}

// build fills a table that is looked up by n bits first.
func (c *code) build(table []uint32, n uint, meaning []uint32) {
	for i := range table[:1<<n] {
		table[i] = exceptional
	}
	free := 1 << n
	var value uint32 // of the code, its first bit highest
	i := 0
	sub, subPrefix, subBits := 0, uint32(1)<<31, uint(0)
	for l := uint(1); l <= maxCode; l++ {
		for k := range c.count[l] {
			m := meaning[c.sorted[i]]
			i++
			reversed := bits.Reverse32(value) >> (32 - l)
			value++
			if l <= n {
				spread(table[:1<<n], reversed, l, entry(m, l))
				continue
			}
			if prefix := reversed & (1<<n - 1); prefix != subPrefix {
				subPrefix, sub, subBits = prefix, free, c.subBits(l, n, c.count[l]-k)
				free += 1 << subBits
				for j := range table[sub:free] {
					table[sub+j] = exceptional
				}
				table[prefix] = exceptional | subtable | uint32(sub)<<16 | uint32(subBits)<<8 | uint32(n)
			}
			spread(table[sub:sub+1<<subBits], reversed>>n, l-n, entry(m, l-n))
		}
		value <<= 1
	}
}

// subBits is how many bits a subtable needs that begins with codes of length l,
// of which there are so many left.
func (c *code) subBits(l, n uint, left int) uint {
	b := l - n
	room := 1<<b - left
	for room > 0 && b+n < maxCode {
		b++
		room = room<<1 - c.count[b+n]
	}
	return b
}

// entry is a symbol's meaning with a code of l bits.
func entry(meaning uint32, l uint) uint32 {
	if meaning&literal != 0 {
		return meaning | uint32(l)
	}
	return meaning + uint32(l) | uint32(l)<<8
}

// spread writes an entry wherever the first l bits are these.
func spread(table []uint32, first uint32, l uint, e uint32) {
	for i := int(first); i < len(table); i += 1 << l {
		table[i] = e
	}
}
