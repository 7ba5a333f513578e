package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/smallstep/pkcs7"
)

// signModule appends a signature to a module, as scripts/sign-file does: without signed
// attributes.
func (n *notary) signModule(module []byte, hash func(*pkcs7.SignedData), detached bool) []byte {
	n.t.Helper()
	s, err := pkcs7.NewSignedData(module)
	if err != nil {
		n.t.Fatal(err)
	}
	hash(s)
	if err := s.SignWithoutAttr(n.cert, n.key, pkcs7.SignerInfoConfig{}); err != nil {
		n.t.Fatal(err)
	}
	if detached {
		s.Detach()
	}
	der, err := s.Finish()
	if err != nil {
		n.t.Fatal(err)
	}
	return appendSignature(module, der)
}

func appendSignature(module, der []byte) []byte {
	b := append(bytes.Clone(module), der...)
	b = append(b, 0, 0, modulePKCS7, 0, 0, 0, 0, 0)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(der))), moduleMagic...)
}

func bySHA256(s *pkcs7.SignedData) { s.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256) }

func TestVerifyModule(t *testing.T) {
	key, other := newNotary(t, "Build time key", nil), newNotary(t, "Build time key", nil)
	module := bytes.Repeat([]byte("module "), 100)
	good := key.signModule(module, bySHA256, true)
	changed := func(at int) []byte {
		b := bytes.Clone(good)
		b[(len(b)+at)%len(b)] ^= 1
		return b
	}
	tail := -len(moduleMagic) - moduleTail
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"signed":                      {good, nil},
		"by SHA-512":                  {key.signModule(module, func(s *pkcs7.SignedData) { s.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA512) }, true), nil},
		"unsigned":                    {module, ErrUnsigned},
		"changed":                     {changed(3), ErrTampered},
		"by another with its own key": {other.signModule(module, bySHA256, true), ErrUnknown},
		"by SHA-1":                    {key.signModule(module, func(s *pkcs7.SignedData) { s.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA1) }, true), ErrSignature},
		"a message with its content":  {key.signModule(module, bySHA256, false), ErrSignature},
		"of another kind":             {changed(tail + 2), ErrSignature},
		"a longer signature":          {changed(tail + 8), ErrSignature},
		"a signature of nothing":      {appendSignature(module, []byte("xxxxxxxx")), ErrSignature},
		"the magic alone":             {[]byte(moduleMagic), ErrSignature},
		"something between":           {appendSignature(append(bytes.Clone(module), 0), good[len(module):len(good)+tail]), ErrTampered},
	} {
		c2, err := VerifyModule(c.b, []*x509.Certificate{key.cert})
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && !c2.Equal(key.cert) {
			t.Errorf("%s: by %v", name, c2.Subject)
		}
	}
	if m, _, err := SplitModule(good); err != nil || !bytes.Equal(m, module) {
		t.Errorf("what is signed: %d bytes, %v", len(m), err)
	}
	all, err := ParseCertificates(append(bytes.Clone(key.cert.Raw), other.cert.Raw...))
	if err != nil || len(all) != 2 || !all[1].Equal(other.cert) {
		t.Errorf("certificates: %v %v", all, err)
	}
	if all, err = ParseCertificates(append(bytes.Clone(key.cert.Raw), 0x30, 1, 0)); err != nil || len(all) != 1 {
		t.Errorf("certificates with one that cannot be read: %v %v", all, err)
	}
}

// TestOpenSSL verifies what another program signed, in the way of scripts/sign-file.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl")
	}
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		c := exec.Command("openssl", args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v: %s", args, err, out)
		}
	}
	module := []byte("a module")
	if err := os.WriteFile(filepath.Join(dir, "m"), module, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kind := range [][]string{{"-newkey", "rsa:2048"}, {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"}} {
		run(append([]string{"req", "-x509", "-nodes", "-subj", "/CN=Build", "-keyout", "k", "-out", "c"}, kind...)...)
		run("x509", "-in", "c", "-outform", "DER", "-out", "d")
		run("cms", "-sign", "-binary", "-noattr", "-nocerts", "-nosmimecap", "-md", "sha256", "-in", "m", "-signer", "c", "-inkey", "k", "-outform", "DER", "-out", "s")
		der, err := os.ReadFile(filepath.Join(dir, "d"))
		if err != nil {
			t.Fatal(err)
		}
		keys, err := ParseCertificates(der)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := os.ReadFile(filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyModule(appendSignature(module, signature), keys); err != nil {
			t.Errorf("%v: %v", kind, err)
		}
	}
}

func FuzzVerifyModule(f *testing.F) {
	key, other := newNotary(f, "Build time key", nil), newNotary(f, "Build time key", nil)
	f.Add(key.signModule([]byte("module"), bySHA256, true))
	f.Add([]byte(moduleMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := VerifyModule(b, []*x509.Certificate{other.cert}); err == nil {
			t.Fatalf("trusted: %v", c.Subject)
		}
	})
}
