package image

import (
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/kernel/image/trust"
)

// ErrNoKeys says that a kernel has no keys built in by which modules could be verified.
var ErrNoKeys = errors.New("the kernel has no certificates built in, or does not name them")

// maxKeys bounds the certificates in a kernel, in bytes. Debian's have 2 KiB.
const maxKeys = 1 << 20

// ModuleKeys are the certificates that are built into the kernel, by which it verifies the
// signatures of modules (certs/system_certificates.S). They are found by their symbol:
// kernels have other certificates too, of which they revoke some.
func (im *Image) ModuleKeys() ([]*x509.Certificate, error) {
	t, err := im.Symbols()
	if err != nil {
		return nil, err
	}
	const list, size = "system_certificate_list", "system_certificate_list_size"
	found := t.Lookup(list, size)
	text, _ := im.Section(".text")
	at := func(name string, n uint64) []byte {
		s, ok := found[name]
		if !ok {
			return nil
		}
		return im.linked(text.Addr+uint64(s.Rel), n)
	}
	b := at(size, 8)
	if b == nil {
		return nil, ErrNoKeys
	}
	n := binary.LittleEndian.Uint64(b)
	if n == 0 {
		return nil, ErrNoKeys
	}
	if n > maxKeys {
		return nil, fmt.Errorf("%w: certificates of %d bytes", ErrFormat, n)
	}
	if b = at(list, n); b == nil {
		return nil, ErrNoKeys
	}
	return trust.ParseCertificates(b)
}
