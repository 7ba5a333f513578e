package reference_test

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"os/exec"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux/synth"
)

var le = binary.LittleEndian

// section is a section of an ELF file.
type section struct {
	name        string
	kind        uint32
	flags, addr uint64
	data        []byte
}

// elf is an ELF file of x86-64 with some sections, and their names.
func elf(kind uint16, sections []section) []byte {
	b := make([]byte, 64)
	names := []byte{0}
	headers := make([]byte, 64)
	add := func(s section) {
		h := make([]byte, 64)
		le.PutUint32(h, uint32(len(names)))
		le.PutUint32(h[4:], s.kind)
		names = append(append(names, s.name...), 0)
		le.PutUint64(h[8:], s.flags)
		le.PutUint64(h[16:], s.addr)
		le.PutUint64(h[24:], uint64(len(b)))
		if s.name == ".shstrtab" {
			s.data = names
		}
		le.PutUint64(h[32:], uint64(len(s.data)))
		b, headers = append(b, s.data...), append(headers, h...)
	}
	for _, s := range sections {
		add(s)
	}
	add(section{name: ".shstrtab", kind: 3})
	b = append(b, make([]byte, (8-len(b)%8)%8)...)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[0x10:], kind)
	le.PutUint16(b[0x12:], 62)
	le.PutUint32(b[0x14:], 1)
	le.PutUint64(b[0x28:], uint64(len(b)))
	le.PutUint16(b[0x34:], 64)
	le.PutUint16(b[0x3a:], 64)
	le.PutUint16(b[0x3c:], uint16(len(sections)+2))
	le.PutUint16(b[0x3e:], uint16(len(sections)+1))
	return append(b, headers...)
}

// buildID is a note of it.
func buildID(id string) []byte {
	b := must(hex.DecodeString(id))
	return append(append(le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, 4), uint32(len(b))), 3), "GNU\x00"...), b...)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// module is a module's file, without a signature.
func module(name, release, id string) []byte {
	return elf(1, []section{
		{".text", 1, 6, 0, bytes.Repeat([]byte{0x90}, 64)},
		{".modinfo", 1, 2, 0, fmt.Appendf(nil, "license=GPL\x00name=%s\x00vermagic=%s SMP preempt mod_unload \x00", name, release)},
		{".note.gnu.build-id", 7, 2, 0, buildID(id)},
	})
}

// key is a key with its certificate.
type key struct {
	*ecdsa.PrivateKey
	cert *x509.Certificate
}

func newKey(name string) key {
	k := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	return key{k, must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k))))}
}

// sign appends a signature to a module.
func (k key) sign(module []byte) []byte {
	s := must(pkcs7.NewSignedData(module))
	s.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	must(0, s.SignWithoutAttr(k.cert, k.PrivateKey, pkcs7.SignerInfoConfig{}))
	s.Detach()
	der := must(s.Finish())
	b := append(append(bytes.Clone(module), der...), 0, 0, 2, 0, 0, 0, 0, 0)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(der))), "~Module signature appended~\n"...)
}

// kernelELF is a vmlinux that has certificates built in.
func kernelELF(release, id string, certificates []byte) []byte {
	const text, rodata, data = image.LinkText, image.LinkText + 0x20_0000, image.LinkText + 0x40_0000
	symbols := []synth.Symbol{{Name: "_text", Type: 'T'}}
	for i := range 4000 {
		symbols = append(symbols, synth.Symbol{Name: fmt.Sprintf("do_something_%d", i), Type: 't', Rel: int64(0x3000 + 16*i)})
	}
	symbols = append(symbols, synth.Symbol{Name: "system_certificate_list_size", Type: 'R', Rel: data - text}, synth.Symbol{Name: "system_certificate_list", Type: 'R', Rel: data - text + 8})
	banner := fmt.Appendf(nil, "Linux version %%s (%%s)\x00Linux version %s (builder) #1\x00", release)
	banner = append(banner, make([]byte, 128-len(banner))...)
	return elf(2, []section{
		{".text", 1, 6, text, bytes.Repeat([]byte{0x90}, 0x3000)},
		{".rodata", 1, 2, rodata, append(banner, synth.Kallsyms(synth.Place, symbols, rodata-text+128, 0)...)},
		{".notes", 7, 2, rodata + 0x10_0000, buildID(id)},
		{".data", 1, 3, data, append(le.AppendUint64(nil, uint64(len(certificates))), certificates...)},
		{".debug_info", 1, 0, 0, bytes.Repeat([]byte("debug"), 1<<16)},
	})
}

// vmlinuz is a kernel as it is booted: a bzImage that is a UEFI program too, so that it can
// be signed.
func vmlinuz(release, id string, certificates []byte) []byte {
	payload := le.AppendUint32(kernelELF(release, id, certificates), 0)
	payload = le.AppendUint32(payload, 0) // two lists of relocations, with nothing in them
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	must(w.Write(payload))
	w.Close()
	const start = 2048
	b := make([]byte, start)
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], 0x40)
	copy(b[0x40:], "PE\x00\x00")
	le.PutUint16(b[0x44:], 0x8664)
	le.PutUint16(b[0x46:], 1)    // sections
	le.PutUint16(b[0x54:], 0xa0) // of the optional header
	le.PutUint16(b[0x56:], 0x22e)
	o := b[0x58:]
	le.PutUint16(o, 0x20b)
	le.PutUint32(o[32:], 0x1000)
	le.PutUint32(o[36:], 0x200)
	le.PutUint32(o[60:], start)
	le.PutUint32(o[108:], 6)
	s := b[0x58+0xa0:]
	copy(s, ".text")
	b[0x1f1] = 3
	copy(b[0x202:], "HdrS\x0f\x02")
	le.PutUint16(b[0x20e:], 0x100)
	copy(b[0x300:], release+" (builder) #1")
	le.PutUint32(b[0x248:], 0)
	le.PutUint32(b[0x24c:], uint32(packed.Len()))
	size := uint32(packed.Len()+511) &^ 511
	le.PutUint32(s[8:], size)
	le.PutUint32(s[12:], 0x1000)
	le.PutUint32(s[16:], size)
	le.PutUint32(s[20:], start)
	le.PutUint32(o[56:], 0x1000+size+0x1000)
	b = append(b, packed.Bytes()...)
	return append(b, make([]byte, start+int(size)-len(b))...)
}

// signer signs kernels by osslsigncode, which is not ours.
type signer struct {
	dir string
	CA  string // file of its certificate
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	for _, tool := range []string{"openssl", "osslsigncode"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("no " + tool)
		}
	}
	s := &signer{dir: t.TempDir()}
	s.run(t, "openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=Example Secure Boot CA", "-keyout", "k", "-out", "c.pem")
	s.CA = s.dir + "/c.pem"
	return s
}

func (s *signer) run(t *testing.T, name string, args ...string) {
	t.Helper()
	c := exec.Command(name, args...)
	c.Dir = s.dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}
