package gzipstream

import (
	"encoding/binary"
	"io"
)

// blockHeader reads what comes before a block.
func (z *decoder) blockHeader() error {
	z.refill()
	z.last = z.take(1) == 1
	switch z.take(2) {
	case 0:
		return z.storedHeader()
	case 1:
		z.fixedCodes()
		z.state = codedBlock
		return nil
	case 2:
		z.state = codedBlock
		return z.dynamicCodes()
	}
	return ErrCorrupt
}

func (z *decoder) storedHeader() error {
	z.align()
	lengths, err := z.number(4)
	if err != nil {
		return err
	}
	if lengths&0xffff != ^lengths>>16 {
		return ErrCorrupt
	}
	z.stored, z.state = int(lengths&0xffff), storedBlock
	return nil
}

// copyStored copies what is there of a block without compression.
func (z *decoder) copyStored() error {
	n := copy(z.out[z.written:outSize], z.in[z.pos:min(z.end, z.pos+z.stored)])
	z.pos += n
	z.written += n
	z.stored -= n
	switch {
	case z.stored == 0:
		z.endBlock()
	case n == 0 && z.eof && z.written < outSize:
		return io.ErrUnexpectedEOF
	}
	return nil
}

// fixedCodes takes the codes that the format has itself.
func (z *decoder) fixedCodes() {
	var lengths [maxLits + maxDists]byte
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		case i < maxLits:
			lengths[i] = 8
		default:
			lengths[i] = 5
		}
	}
	lits, _ := newCode(lengths[:maxLits])
	lits.build(z.lit[:], litBits, litMeaning[:])
	dists, _ := newCode(lengths[maxLits:])
	dists.build(z.dist[:], distBits, distMeaning[:])
}

// dynamicCodes reads the codes that come before a block.
func (z *decoder) dynamicCodes() error {
	lits, dists, n := int(z.take(5))+257, int(z.take(5))+1, int(z.take(4))+4
	if lits > 286 || dists > 30 {
		return ErrCorrupt
	}
	var own [19]byte
	for i := range n {
		z.refill()
		own[codeOrder[i]] = byte(z.take(3))
	}
	lengths, err := z.codeLengths(own[:], lits+dists)
	if err != nil {
		return err
	}
	lit, ok := newCode(lengths[:lits])
	dist, ok2 := newCode(lengths[lits : lits+dists])
	if !ok || !ok2 || lengths[endSymbol] == 0 {
		return ErrCorrupt
	}
	lit.build(z.lit[:], litBits, litMeaning[:])
	dist.build(z.dist[:], distBits, distMeaning[:])
	return nil
}

// codeLengths reads n code lengths, which are coded themselves.
func (z *decoder) codeLengths(own []byte, n int) (lengths [maxLits + maxDists]byte, err error) {
	const ownBits = 7
	var meaning [19]uint32
	for i := range meaning {
		meaning[i] = literal | uint32(i)<<16
	}
	var table [1 << ownBits]uint32
	c, ok := newCode(own)
	if !ok || c.used == 0 {
		return lengths, ErrCorrupt
	}
	c.build(table[:], ownBits, meaning[:])
	for i := 0; i < n; {
		if err := z.fill(); err != nil {
			return lengths, err
		}
		z.refill()
		e := table[z.bits&(1<<ownBits-1)]
		if e&literal == 0 {
			return lengths, ErrCorrupt
		}
		z.take(uint(e & 0xff))
		symbol, repeat, what := byte(e>>16), 1, byte(e>>16)
		switch {
		case symbol == 16 && i == 0:
			return lengths, ErrCorrupt
		case symbol == 16:
			repeat, what = 3+int(z.take(2)), lengths[i-1]
		case symbol == 17:
			repeat, what = 3+int(z.take(3)), 0
		case symbol == 18:
			repeat, what = 11+int(z.take(7)), 0
		}
		if repeat > n-i {
			return lengths, ErrCorrupt
		}
		for range repeat {
			lengths[i] = what
			i++
		}
	}
	return lengths, nil
}

// distMost is how many bits a distance may take.
const distMost = maxCode + 13

// perStep is how many bytes of input one round of inflate may use.
const perStep = 32

// inflate decodes a block until it or the input in hand ends, or the output is
// full. The loop's state is in local variables, for its speed's sake; refilled
// and words are small enough for the compiler to write them into it. The next
// code is looked up before a match is copied, which takes a while; and most
// matches are shorter than four words, which cost less than to ask.
func (z *decoder) inflate() (err error) {
	limit, full := z.bounds()
	in, out, lit, dist := &z.in, &z.out, &z.lit, &z.dist
	acc, count, pos, at := z.bits, z.count, z.pos, z.written
	ended := false
	if at >= full || pos > limit {
		return nil
	}
	acc, count, pos = refilled(in, acc, count, pos)
	for e := lit[acc&(1<<litBits-1)]; at < full && pos <= limit; {
		if e&literal != 0 {
			acc, count, out[at], at = acc>>(e&63), count-uint(e&63), byte(e>>16), at+1
			if e = lit[acc&(1<<litBits-1)]; e&literal != 0 {
				acc, count, out[at], at = acc>>(e&63), count-uint(e&63), byte(e>>16), at+1
				if e = lit[acc&(1<<litBits-1)]; e&literal != 0 {
					acc, count, out[at], at = acc>>(e&63), count-uint(e&63), byte(e>>16), at+1
					if e = lit[acc&(1<<litBits-1)]; e&literal != 0 {
						acc, count, out[at], at = acc>>(e&63), count-uint(e&63), byte(e>>16), at+1
						acc, count, pos = refilled(in, acc, count, pos)
						e = lit[acc&(1<<litBits-1)]
						continue
					}
				}
			}
		}
		if e&exceptional != 0 {
			if e&subtable != 0 {
				acc, count = acc>>litBits, count-litBits
				e = lit[(e>>16+uint32(acc)&(1<<(e>>8&15)-1))&(litEntries-1)]
			}
			if e&literal != 0 {
				acc, count, out[at], at = acc>>(e&63), count-uint(e&63), byte(e>>16), at+1
				acc, count, pos = refilled(in, acc, count, pos)
				e = lit[acc&(1<<litBits-1)]
				continue
			}
			if e&exceptional != 0 {
				if ended = e&endOfBlock != 0; !ended {
					err = ErrCorrupt
				}
				acc, count = acc>>(e&63), count-uint(e&63)
				break
			}
		}
		length := int(e>>16) + int(acc&(1<<(e&63)-1)>>(e>>8&31))
		acc, count = acc>>(e&63), count-uint(e&63)
		if count < distMost {
			acc, count, pos = refilled(in, acc, count, pos)
		}
		e = dist[acc&(1<<distBits-1)]
		if e&subtable != 0 {
			acc, count = acc>>distBits, count-distBits
			e = dist[(e>>16+uint32(acc)&(1<<(e>>8&15)-1))&(distEntries-1)]
		}
		distance := int(e>>16) + int(acc&(1<<(e&63)-1)>>(e>>8&31))
		acc, count = acc>>(e&63), count-uint(e&63)
		if e&exceptional != 0 || distance > at-z.oldest {
			err = ErrCorrupt
			break
		}
		acc, count, pos = refilled(in, acc, count, pos)
		e = lit[acc&(1<<litBits-1)]
		if distance < 8 {
			at = repeat(out, at, distance, length)
			continue
		}
		end, from := at+length, at-distance
		words(out, at, from)
		words(out, at+16, from+16)
		for at, from = at+32, from+32; at < end; at, from = at+16, from+16 {
			words(out, at, from)
		}
		at = end
	}
	z.bits, z.count, z.pos, z.written = acc, count, pos, at
	if ended {
		z.endBlock()
	}
	return err
}

// bounds are up to where inflate may read and write.
func (z *decoder) bounds() (limit, full int) {
	if limit = z.end - perStep; z.eof && z.pos > limit {
		// One round at a time, since it may be the one that goes too far.
		return z.end + padding - perStep, min(z.written+1, outSize)
	}
	return limit, outSize
}

// refilled has at least 56 bits.
func refilled(in *[inSize + padding]byte, acc uint64, count uint, pos int) (uint64, uint, int) {
	return acc | binary.LittleEndian.Uint64(in[pos:pos+8])<<(count&63), count | 56, pos + int(63-count)>>3
}

// words copies two words, of which the second may be of what was the first.
func words(out *[outSize + slack]byte, at, from int) {
	to, of := out[at:at+16], out[from:from+16]
	binary.LittleEndian.PutUint64(to, binary.LittleEndian.Uint64(of))
	binary.LittleEndian.PutUint64(to[8:], binary.LittleEndian.Uint64(of[8:]))
}

// repeat writes a match whose distance is shorter than a word, and up to seven
// bytes more, which are written over.
func repeat(out *[outSize + slack]byte, at, distance, length int) int {
	end, from := at+length, at-distance
	// A word at a time would read what is not written yet: make the distance
	// a multiple that is long enough.
	for distance < 8 {
		n := min(distance, end-at)
		copy(out[at:at+n], out[from:from+n])
		at += n
		distance *= 2
		if at == end {
			return end
		}
	}
	for ; at < end; at, from = at+8, from+8 {
		binary.LittleEndian.PutUint64(out[at:at+8], binary.LittleEndian.Uint64(out[from:from+8]))
	}
	return end
}
