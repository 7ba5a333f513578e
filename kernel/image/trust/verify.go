package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"

	"github.com/smallstep/pkcs7"
)

var (
	oidIndirectData = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4} // SPC_INDIRECT_DATA_OBJID
	oidContentType  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
)

// digests are the hashes that are accepted. SHA-1 is not: files with the same one can be
// made.
var digests = []struct {
	oid asn1.ObjectIdentifier
	new func() hash.Hash
}{
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, sha256.New},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, sha512.New384},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, sha512.New},
}

// Verify finds the signature of a file by one of the authorities. Errors wrap one of
// [ErrUnsigned], [ErrTampered], [ErrUnknown] and [ErrSignature]; of several signatures
// the best counts.
//
// As in Secure Boot, that a certificate has expired since, or was revoked, does not matter:
// what a distribution published it has published. A signing time outside of the signer's
// certificate is an error.
func Verify(b []byte, authorities []Authority) (Signature, error) {
	p, err := parseProgram(b)
	if err != nil {
		return Signature{}, err
	}
	all := p.signatures()
	if len(all) == 0 {
		return Signature{}, fmt.Errorf("%w: no signature in the place for it", ErrSignature)
	}
	var errs []error
	for _, der := range all {
		s, err := p.verify(der, authorities)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return Signature{}, errors.Join(errs...)
}

// verify checks one signature.
func (p *program) verify(der []byte, authorities []Authority) (s Signature, err error) {
	message, err := parseMessage(der)
	if err != nil {
		return s, err
	}
	digest, sum, err := indirectData(message.Content)
	if err != nil {
		return s, err
	}
	if s.Digest = p.hash(sum); !bytes.Equal(s.Digest, digest) {
		return s, fmt.Errorf("%w: its hash is %x, signed was %x", ErrTampered, s.Digest, digest)
	}
	// One signer, whose attributes say that it signed this kind of content.
	if s.Signer = message.GetOnlySigner(); s.Signer == nil {
		return s, fmt.Errorf("%w: %d signers, one with its certificate is needed", ErrSignature, len(message.Signers))
	}
	var kind asn1.ObjectIdentifier
	if err := message.UnmarshalSignedAttribute(oidContentType, &kind); err != nil || !kind.Equal(oidIndirectData) {
		return s, fmt.Errorf("%w: what was signed is not about a program (%v)", ErrSignature, kind)
	}
	if err := message.Verify(); err != nil {
		return s, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	a, ok := issuer(s.Signer, message.Certificates, authorities)
	if !ok {
		return s, fmt.Errorf("%w: %s, issued by %s", ErrUnknown, s.Signer.Subject, s.Signer.Issuer)
	}
	s.Authority = a
	return s, nil
}

// parseMessage parses a PKCS #7 message. What is behind it pads it.
func parseMessage(der []byte) (m *pkcs7.PKCS7, err error) {
	defer func() { // whoever made the file chooses these bytes: a slip of the parser is an error
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrSignature, r)
		}
	}()
	var raw asn1.RawValue
	if _, err := asn1.Unmarshal(der, &raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if m, err = pkcs7.Parse(raw.FullBytes); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return m, nil
}

// indirectData reads SpcIndirectDataContent, less the header of its sequence: what the
// digest is of, then the digest.
func indirectData(content []byte) (digest []byte, h hash.Hash, err error) {
	var what asn1.RawValue
	rest, err := asn1.Unmarshal(content, &what)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	var info struct {
		Algorithm struct {
			OID    asn1.ObjectIdentifier
			Params asn1.RawValue `asn1:"optional"`
		}
		Digest []byte
	}
	if rest, err = asn1.Unmarshal(rest, &info); err != nil || len(rest) > 0 {
		return nil, nil, fmt.Errorf("%w: its digest: %w", ErrSignature, errors.Join(err, fmt.Errorf("%d bytes left", len(rest))))
	}
	for _, d := range digests {
		if d.oid.Equal(info.Algorithm.OID) {
			return info.Digest, d.new(), nil
		}
	}
	return nil, nil, fmt.Errorf("%w: hash %v is not accepted", ErrSignature, info.Algorithm.OID)
}

// maxChain bounds the certificates between a signer and its authority.
const maxChain = 4

// issuer finds the authority that issued a signer's certificate, itself or through
// others of the message.
func issuer(c *x509.Certificate, others []*x509.Certificate, authorities []Authority) (Authority, bool) {
	for range maxChain {
		for _, a := range authorities {
			if a.Certificate.Equal(c) || bytes.Equal(a.Certificate.RawSubject, c.RawIssuer) && issued(a.Certificate, c) {
				return a, true
			}
		}
		next := (*x509.Certificate)(nil)
		for _, o := range others[:min(len(others), 16)] {
			if o.BasicConstraintsValid && o.IsCA && !o.Equal(c) && bytes.Equal(o.RawSubject, c.RawIssuer) && issued(o, c) {
				next = o
			}
		}
		if next == nil {
			break
		}
		c = next
	}
	return Authority{}, false
}

// issued reports whether parent's key signed c. Fedora's authority of 2012 does not say
// that it is one, so what it says is not asked.
func issued(parent, c *x509.Certificate) bool {
	return parent.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}
