package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/big"
	"testing"
	"time"
)

// fingerprints are those of the files: a change of one is a change of whom we trust.
var fingerprints = map[string]string{
	"3d5c198dc5849ce40d55d6a88fcac398327d84d6aa25e0b91e89757b727e6dea": "AlmaLinux",
	"f1fdf7ae3924a187e0f30a502271cb8369f5f26b8032f026aef6fce7a113d1c4": "CentOS",
	"079646974bce09b1f04da67bd722d1fb0947ae4c4010bccdbba52d5b23cbf1a2": "Debian",
	"147dd2dcd70f9b12d721404b53d8b07a511d59bcde747d38a4c33eb279c302db": "Fedora",
	"a3b384810d48f1666d5df01c0684c5f5325b57ef5dee5223d9bf66aeefef332e": "Fedora",
	"207c5da802269733f7e69bfb38dddc35dc139747dc751dc9bb04c69d5befbb7d": "openSUSE",
	"e386f22ff3fb8c9b36256bdc2d0cb2c866398c75e4cc4f7ae6da2739237f0cac": "Oracle Linux",
	"9996c73616ee42f13396c9abfb4b646b538c3c80940474b710afdbe53bf17d32": "Red Hat",
	"40175d4c7c5ab4bd753a493f47952f1d8dcf1c219b836968a693e48bd4766135": "Red Hat",
	"72568059455c1774b3668b5fd67ba3578551925adfa52b6999cad549f52e46d6": "Red Hat",
	"bbeba8b37ab5d2289ff1e820527c852c5e9ee713ab8d14fc899ee60dd7464227": "Rocky Linux",
	"e3e557c4eae8c1103e94808a606172693233c05f1338f23e577829e4b7654dcc": "SUSE",
	"c315e37690d6847d6603db8c6f7b4c20aae7c89af3bf5e8e41c48416ea1da5b4": "SUSE",
	"ed1fe72cb9ca31c9af5b757afcd733323d675825032e6ced7fe1ae9eb767998c": "Ubuntu",
}

func TestCertificates(t *testing.T) {
	all := Authorities()
	for _, a := range all {
		sum := sha256.Sum256(a.Certificate.Raw)
		if name := fingerprints[hex.EncodeToString(sum[:])]; name == "" || name != a.Name {
			t.Errorf("%s: %x is %q", a.Certificate.Subject, sum, name)
		}
	}
	if len(all) != len(fingerprints) {
		t.Errorf("%d certificates, %d fingerprints", len(all), len(fingerprints))
	}
}

// notary makes certificates and signatures for tests.
type notary struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newNotary(t testing.TB, name string, by *notary) *notary {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	n := &notary{t: t, key: key}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour), // expired: that must not matter
		IsCA: by == nil || name == "between", BasicConstraintsValid: true,
	}
	if by == nil {
		by = &notary{key: key, cert: c}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	if n.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *notary) der(v any) []byte {
	n.t.Helper()
	b, err := asn1.Marshal(v)
	if err != nil {
		n.t.Fatal(err)
	}
	return b
}

type algorithm struct{ OID asn1.ObjectIdentifier }

func raw(class, tag int, b ...[]byte) asn1.RawValue {
	return asn1.RawValue{Class: class, Tag: tag, IsCompound: true, Bytes: bytes.Join(b, nil)}
}

var (
	oidSHA256   = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA1     = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidECDSA    = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidDigest   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigned   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidPlain    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidPEImage  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
	programSize = 4096
)

// sign makes an Authenticode message about a hash.
func (n *notary) sign(sum []byte, hash, kind asn1.ObjectIdentifier, more ...*notary) []byte {
	inner := append(n.der(struct{ OID asn1.ObjectIdentifier }{oidPEImage}), n.der(struct {
		A algorithm
		D []byte
	}{algorithm{hash}, sum})...)
	content := sha256.Sum256(inner)
	attributes := append(n.der(struct {
		OID asn1.ObjectIdentifier
		Set asn1.RawValue
	}{oidContentType, raw(0, 17, n.der(kind))}), n.der(struct {
		OID asn1.ObjectIdentifier
		Set asn1.RawValue
	}{oidDigest, raw(0, 17, n.der(content[:]))})...)
	signed := sha256.Sum256(n.der(raw(0, 17, attributes)))
	signature, err := n.key.Sign(rand.Reader, signed[:], crypto.SHA256)
	if err != nil {
		n.t.Fatal(err)
	}
	certificates := bytes.Clone(n.cert.Raw)
	for _, m := range more {
		certificates = append(certificates, m.cert.Raw...)
	}
	type issuerAndSerial struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	signer := n.der(struct {
		Version    int
		ID         issuerAndSerial
		Digest     algorithm
		Attributes asn1.RawValue
		Encryption algorithm
		Signature  []byte
	}{1, issuerAndSerial{asn1.RawValue{FullBytes: n.cert.RawIssuer}, n.cert.SerialNumber}, algorithm{oidSHA256}, raw(2, 0, attributes), algorithm{oidECDSA}, signature})
	message := n.der(struct {
		Version      int
		Digests      asn1.RawValue
		Content      asn1.RawValue
		Certificates asn1.RawValue
		Signers      asn1.RawValue
	}{1, raw(0, 17, n.der(algorithm{oidSHA256})), raw(0, 16, n.der(oidIndirectData), n.der(raw(2, 0, n.der(raw(0, 16, inner))))), raw(2, 0, certificates), raw(0, 17, signer)})
	return n.der(struct {
		OID asn1.ObjectIdentifier
		C   asn1.RawValue
	}{oidSigned, raw(2, 0, message)})
}

// unsigned is a small UEFI program.
func unsigned() []byte {
	b := make([]byte, programSize)
	for i := range b[0x300:] {
		b[0x300+i] = byte(i * 7)
	}
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[pePointer:], 0x80)
	copy(b[0x80:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[0x98:], peMagic64)
	binary.LittleEndian.PutUint32(b[0x98+optionalDirs-4:], 16)
	return b
}

// attach puts signatures at the end of a program.
func attach(b []byte, messages ...[]byte) []byte {
	b = bytes.Clone(b)
	start := len(b)
	for _, m := range messages {
		n := 8 + len(m)
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
		b = append(append(b, 0, 2, 2, 0), m...)
		b = append(b, make([]byte, (8-n%8)%8)...)
	}
	at := 0x98 + optionalDirs + 8*certDirectory
	binary.LittleEndian.PutUint32(b[at:], uint32(start))
	binary.LittleEndian.PutUint32(b[at+4:], uint32(len(b)-start))
	return b
}

func sum(t testing.TB, b []byte) []byte {
	t.Helper()
	p, err := parseProgram(attach(b, []byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	return p.hash(sha256.New())
}

func TestVerify(t *testing.T) {
	ca := newNotary(t, "Small Secure Boot CA", nil)
	signer := newNotary(t, "Small signer", ca)
	between := newNotary(t, "between", ca)
	far := newNotary(t, "far signer", between)
	notCA := newNotary(t, "user", signer)
	stranger := newNotary(t, "Small Secure Boot CA", nil) // of the same name
	strange := newNotary(t, "strange signer", stranger)
	authorities := []Authority{{"Small", ca.cert}}
	b := unsigned()
	s := sum(t, b)
	good := signer.sign(s, oidSHA256, oidIndirectData)
	changed := func(at int, file []byte) []byte {
		file = bytes.Clone(file)
		file[at] ^= 1
		return file
	}
	for name, c := range map[string]struct {
		file []byte
		want error
	}{
		"signed":                       {attach(b, good), nil},
		"by the authority itself":      {attach(b, ca.sign(s, oidSHA256, oidIndirectData)), nil},
		"through another":              {attach(b, far.sign(s, oidSHA256, oidIndirectData, between)), nil},
		"the second of two":            {attach(b, strange.sign(s, oidSHA256, oidIndirectData), good), nil},
		"another checksum":             {changed(0x98+optionalSums, attach(b, good)), nil},
		"unsigned":                     {b, ErrUnsigned},
		"no program":                   {[]byte("hello"), ErrUnsigned},
		"changed":                      {changed(0x400, attach(b, good)), ErrTampered},
		"changed in its header":        {changed(0x90, attach(b, good)), ErrTampered},
		"changed in its last byte":     {changed(programSize-1, attach(b, good)), ErrTampered},
		"longer":                       {append(attach(b, good), 0), ErrSignature},
		"by a stranger":                {attach(b, strange.sign(s, oidSHA256, oidIndirectData)), ErrUnknown},
		"by a stranger with our CA":    {attach(b, strange.sign(s, oidSHA256, oidIndirectData, ca)), ErrUnknown},
		"through one who must not":     {attach(b, notCA.sign(s, oidSHA256, oidIndirectData, signer)), ErrUnknown},
		"through one who is not there": {attach(b, far.sign(s, oidSHA256, oidIndirectData)), ErrUnknown},
		"of another kind":              {attach(b, signer.sign(s, oidSHA256, oidPlain)), ErrSignature},
		"by SHA-1":                     {attach(b, signer.sign(s[:20], oidSHA1, oidIndirectData)), ErrSignature},
		"a signature of nothing":       {attach(b, []byte("xxxxxxxxxxxxxxxx")), ErrSignature},
		"a signature that was cut":     {attach(b, good[:len(good)-4]), ErrSignature},
		"a signature that was changed": {attach(b, changed(len(good)-3, good)), ErrSignature},
		"no signature in the place":    {attach(b, nil, nil)[:programSize+8], ErrSignature},
	} {
		got, err := Verify(c.file, authorities)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (got.Authority.Name != "Small" || !bytes.Equal(got.Digest, s)) {
			t.Errorf("%s: %+v", name, got)
		}
		if _, err := Verify(c.file, Authorities()); err == nil {
			t.Errorf("%s: trusted by a distribution", name)
		}
	}
	if !bytes.Equal(Signed(attach(b, good))[0x300:], b[0x300:]) {
		t.Error("what is signed is not the program")
	}
}

func FuzzVerify(f *testing.F) {
	ca := newNotary(f, "Small Secure Boot CA", nil)
	b := unsigned()
	f.Add(attach(b, ca.sign(sum(f, b), oidSHA256, oidIndirectData)))
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		Signed(b)
		if s, err := Verify(b, Authorities()); err == nil {
			t.Fatalf("trusted: %v", s)
		}
	})
}
