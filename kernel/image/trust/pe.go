package trust

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
)

// The errors of [Verify].
var (
	ErrUnsigned = errors.New("not signed")
	// ErrTampered: the signature is not that of these bytes.
	ErrTampered = errors.New("the file was changed after it was signed")
	// ErrUnknown: the signature is whole, but by nobody who is known.
	ErrUnknown = errors.New("signed by an authority that is not known")
	// ErrSignature: the signature cannot be understood, or contradicts itself.
	ErrSignature = errors.New("its signature is damaged")
)

// program is a PE/COFF file, as far as its signature is concerned.
type program struct {
	b            []byte
	checksum     int // where its checksum is, which is not hashed
	directory    int // where the place of the signatures is, neither
	certificates int // where they begin: what is hashed ends there
}

const (
	pePointer     = 0x3c // of the header "PE\0\0"
	peOptional    = 24   // from it to the optional header
	optionalSums  = 64   // from that to the checksum
	optionalDirs  = 112  // to the data directories, of a 64-bit program
	peMagic64     = 0x20b
	certDirectory = 4 // IMAGE_DIRECTORY_ENTRY_SECURITY
)

// parseProgram finds a program's signatures. They must be the last of the file, since what
// is behind them nobody signed.
func parseProgram(b []byte) (*program, error) {
	if len(b) < 0x40 || b[0] != 'M' || b[1] != 'Z' {
		return nil, fmt.Errorf("%w: it is not a UEFI program", ErrUnsigned)
	}
	at := uint64(binary.LittleEndian.Uint32(b[pePointer:]))
	optional := at + peOptional
	if optional+optionalDirs+8*(certDirectory+1) > uint64(len(b)) || string(b[at:at+4]) != "PE\x00\x00" || binary.LittleEndian.Uint16(b[optional:]) != peMagic64 {
		return nil, fmt.Errorf("%w: it is not a UEFI program of 64 bits", ErrUnsigned)
	}
	p := &program{b: b, checksum: int(optional) + optionalSums, directory: int(optional) + optionalDirs + 8*certDirectory}
	if dirs := binary.LittleEndian.Uint32(b[optional+optionalDirs-4:]); dirs <= certDirectory {
		return nil, fmt.Errorf("%w: it has no place for signatures", ErrUnsigned)
	}
	start := uint64(binary.LittleEndian.Uint32(b[p.directory:]))
	size := uint64(binary.LittleEndian.Uint32(b[p.directory+4:]))
	if start == 0 && size == 0 {
		return nil, ErrUnsigned
	}
	if start < uint64(p.directory)+8 || start+size != uint64(len(b)) {
		return nil, fmt.Errorf("%w: %d bytes of signatures at %#x are not the end of its %d bytes", ErrSignature, size, start, len(b))
	}
	p.certificates = int(start)
	return p, nil
}

// hash sums the file up as Authenticode does.
func (p *program) hash(h hash.Hash) []byte {
	h.Write(p.b[:p.checksum])
	h.Write(p.b[p.checksum+4 : p.directory])
	h.Write(p.b[p.directory+8 : p.certificates])
	return h.Sum(nil)
}

// maxSignatures bounds the signatures of one file.
const maxSignatures = 16

// signatures are the PKCS #7 messages (WIN_CERTIFICATE of type 2).
func (p *program) signatures() (all [][]byte) {
	for b := p.b[p.certificates:]; len(b) >= 8 && len(all) < maxSignatures; {
		n := uint64(binary.LittleEndian.Uint32(b))
		if n < 8 || n > uint64(len(b)) {
			break
		}
		if binary.LittleEndian.Uint16(b[4:]) == 0x200 && binary.LittleEndian.Uint16(b[6:]) == 2 {
			all = append(all, b[8:n])
		}
		b = b[min((n+7)&^7, uint64(len(b))):]
	}
	return all
}

// Signed is the part of a signed file that is under the signature: all but the signature.
func Signed(b []byte) []byte {
	p, err := parseProgram(b)
	if err != nil {
		return b
	}
	return b[:p.certificates]
}
