package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"fmt"

	"github.com/smallstep/pkcs7"
)

// Modules are signed otherwise than kernels: the file is followed by a PKCS #7 message about
// all that is before it, struct module_signature and a magic text (scripts/sign-file.c). The
// signer's certificate is not in the message but in the kernel (certs/system_keyring.c).

const (
	moduleMagic  = "~Module signature appended~\n"
	moduleTail   = 12 // struct module_signature
	modulePKCS7  = 2  // PKEY_ID_PKCS7
	maxSignature = 64 << 10
)

// SplitModule is a module's file without its signature, and the signature; nil if it has
// none. Errors wrap [ErrSignature].
func SplitModule(b []byte) (module, signature []byte, err error) {
	if !bytes.HasSuffix(b, []byte(moduleMagic)) {
		return b, nil, nil
	}
	rest := b[:len(b)-len(moduleMagic)]
	if len(rest) < moduleTail {
		return nil, nil, fmt.Errorf("%w: the module is cut off", ErrSignature)
	}
	tail := rest[len(rest)-moduleTail:]
	rest = rest[:len(rest)-moduleTail]
	n := binary.BigEndian.Uint32(tail[8:])
	if n > maxSignature || uint64(n) > uint64(len(rest)) {
		return nil, nil, fmt.Errorf("%w: %d bytes of it in a module of %d", ErrSignature, n, len(b))
	}
	if tail[2] != modulePKCS7 {
		return nil, nil, fmt.Errorf("%w: of kind %d; only PKCS #7 is known", ErrSignature, tail[2])
	}
	return rest[:len(rest)-int(n)], rest[len(rest)-int(n):], nil
}

// VerifyModule finds which of the keys signed a module: those that are built into its
// kernel. Errors wrap one of [ErrUnsigned], [ErrTampered], [ErrUnknown] and [ErrSignature].
func VerifyModule(b []byte, keys []*x509.Certificate) (*x509.Certificate, error) {
	module, signature, err := SplitModule(b)
	if err != nil {
		return nil, err
	}
	if signature == nil {
		return nil, ErrUnsigned
	}
	message, err := parseMessage(signature)
	if err != nil {
		return nil, err
	}
	if len(message.Signers) != 1 || len(message.Content) > 0 {
		return nil, fmt.Errorf("%w: %d signers of %d bytes of their own", ErrSignature, len(message.Signers), len(message.Content))
	}
	signer := message.Signers[0]
	if !accepted(signer.DigestAlgorithm.Algorithm) {
		return nil, fmt.Errorf("%w: hash %v is not accepted", ErrSignature, signer.DigestAlgorithm.Algorithm)
	}
	message.Certificates = nil // whoever made the file chose those
	for _, k := range keys {
		if k.SerialNumber.Cmp(signer.IssuerAndSerialNumber.SerialNumber) == 0 && bytes.Equal(k.RawIssuer, signer.IssuerAndSerialNumber.IssuerName.FullBytes) {
			message.Certificates = append(message.Certificates, k)
		}
	}
	if len(message.Certificates) == 0 {
		return nil, fmt.Errorf("%w: serial number %x is none of the kernel's %d keys", ErrUnknown, signer.IssuerAndSerialNumber.SerialNumber, len(keys))
	}
	key := message.Certificates[0]
	message.Certificates = message.Certificates[:1]
	message.Content = module
	if err := verifyMessage(message); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTampered, err)
	}
	return key, nil
}

// accepted says whether files with the same hash cannot be made.
func accepted(hash asn1.ObjectIdentifier) bool {
	for _, d := range digests {
		if d.oid.Equal(hash) {
			return true
		}
	}
	return false
}

// ParseCertificates reads the certificates that are built into a kernel: one behind the
// other, in DER.
func ParseCertificates(b []byte) ([]*x509.Certificate, error) {
	all, err := x509.ParseCertificates(b)
	if err == nil {
		return all, nil
	}
	// One that Go does not take must not hide the others.
	all = nil
	for len(b) > 0 && len(all) < maxCertificates {
		var raw asn1.RawValue
		rest, e := asn1.Unmarshal(b, &raw)
		if e != nil {
			break
		}
		if c, e := x509.ParseCertificate(raw.FullBytes); e == nil {
			all = append(all, c)
		}
		b = rest
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("certificates in the kernel: %w", err)
	}
	return all, nil
}

const maxCertificates = 256

// verifyMessage checks the signature of a message.
func verifyMessage(m *pkcs7.PKCS7) (err error) {
	defer func() { // as in parseMessage
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return m.Verify()
}
