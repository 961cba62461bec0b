// Package recorder keeps what happened to pods and containers, so that
// somebody can ask why later: after a restart of the agent, and after the pod
// is gone.
//
// It is bounded in every direction. Entries are handed to one goroutine over a
// queue, and are dropped and counted when that is full, so that whoever notes
// something never waits. They are appended to segments, files of lines
//
//	1a2b3c4d {"at":…}
//
// with a checksum (CRC-32C) before each, of which the oldest is removed when
// there are too many. Nothing is synced to the disk: an entry outlives the
// agent's death, though not always a power cut. A torn last line is cut off
// when the recorder is opened, and a line whose checksum does not match is
// passed over when it is read.
package recorder
