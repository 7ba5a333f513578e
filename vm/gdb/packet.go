package gdb

import "errors"

// maxPacket bounds a packet's content, in bytes, as it comes and as it is unpacked. QEMU's
// own limit is 4096 (gdbstub/internals.h); descriptions come in pieces of no more.
const maxPacket = 64 << 10

var (
	errTooLong  = errors.New("the stub sends a packet that is too long")
	errChecksum = errors.New("the stub sends a packet with an invalid checksum")
	errEncoding = errors.New("the stub sends a packet that is encoded wrongly")
)

const hexDigits = "0123456789abcdef"

// appendPacket appends the frame of one packet: '$', its content, '#' and the checksum.
func appendPacket(dst []byte, content string) []byte {
	dst = append(dst, '$')
	var sum byte
	for i := range len(content) {
		b := content[i]
		if b == '$' || b == '#' || b == '}' || b == '*' {
			dst = append(dst, '}', b^0x20)
			sum += '}' + b ^ 0x20
			continue
		}
		dst = append(dst, b)
		sum += b
	}
	return append(dst, '#', hexDigits[sum>>4], hexDigits[sum&15])
}

// frame is what a [decoder] has read.
type frame int

const (
	frameNone   frame = iota // not yet a whole one
	framePacket              // a packet: its content is decoder.content
	frameResend              // '-': the other side asks for the last packet again
	frameBroken              // an error, see decoder.err
)

// decoder takes what comes byte by byte, so that a read that was interrupted in the middle of a
// packet can go on.
type decoder struct {
	content []byte
	err     error

	phase phase
	raw   []byte
	sum   byte
	want  byte
}

type phase int

const (
	phaseIdle phase = iota
	phaseContent
	phaseFirst  // the first digit of the checksum comes next
	phaseSecond // the second
)

// feed takes one byte.
func (d *decoder) feed(b byte) frame {
	switch d.phase {
	case phaseIdle:
		switch b {
		case '$':
			d.phase, d.raw, d.sum = phaseContent, d.raw[:0], 0
		case '-':
			return frameResend
		}
		return frameNone // '+', and what is left of something else
	case phaseContent:
		switch {
		case b == '#':
			d.phase = phaseFirst
		case len(d.raw) >= maxPacket:
			return d.broken(errTooLong)
		default:
			d.raw, d.sum = append(d.raw, b), d.sum+b
		}
		return frameNone
	case phaseFirst:
		n, ok := hexDigit(b)
		if !ok {
			return d.broken(errChecksum)
		}
		d.want, d.phase = n<<4, phaseSecond
		return frameNone
	}
	n, ok := hexDigit(b)
	if !ok || d.want|n != d.sum {
		return d.broken(errChecksum)
	}
	d.phase = phaseIdle
	if d.content, d.err = unpack(d.content[:0], d.raw); d.err != nil {
		return d.broken(d.err)
	}
	return framePacket
}

func (d *decoder) broken(err error) frame {
	d.phase, d.err = phaseIdle, err
	return frameBroken
}

// unpack undoes the escapes and the run lengths of raw.
func unpack(dst, raw []byte) ([]byte, error) {
	for i := 0; i < len(raw); i++ {
		switch b := raw[i]; b {
		case '}':
			if i++; i == len(raw) {
				return dst, errEncoding
			}
			dst = append(dst, raw[i]^0x20)
		case '*':
			// The byte before comes so many times more; the count is printable.
			if i++; i == len(raw) || raw[i] < ' ' || raw[i] > '~' || len(dst) == 0 {
				return dst, errEncoding
			}
			for n := int(raw[i]) - 29; n > 0; n-- {
				dst = append(dst, dst[len(dst)-1])
			}
		default:
			dst = append(dst, b)
		}
		if len(dst) > maxPacket {
			return dst, errTooLong
		}
	}
	return dst, nil
}

func hexDigit(b byte) (byte, bool) {
	switch {
	case '0' <= b && b <= '9':
		return b - '0', true
	case 'a' <= b && b <= 'f':
		return b - 'a' + 10, true
	case 'A' <= b && b <= 'F':
		return b - 'A' + 10, true
	}
	return 0, false
}

// unhex decodes the hexadecimal digits of s into dst; false where that is not what they are.
func unhex(dst []byte, s []byte) bool {
	if len(s) != 2*len(dst) {
		return false
	}
	for i := range dst {
		high, ok := hexDigit(s[2*i])
		low, ok2 := hexDigit(s[2*i+1])
		if !ok || !ok2 {
			return false
		}
		dst[i] = high<<4 | low
	}
	return true
}
