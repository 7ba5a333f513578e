// Package trust verifies the signatures that distributions put on their kernels for Secure
// Boot: a boot image that carries one is what the distribution published, wherever it was
// found.
//
// A vmlinuz is also a UEFI program (PE/COFF), and signed as one: Authenticode, a PKCS #7
// message about the file's hash. The certificates of the authorities are in the folder
// certificates, with their origin in its README.
package trust

import (
	"crypto/x509"
	"embed"
	"fmt"
	"slices"
	"strings"
	"sync"
)

//go:embed certificates/*.der
var files embed.FS

// Authority is who vouches for kernels by a certificate of its own.
type Authority struct {
	Name        string // of the distribution: "Debian"
	Certificate *x509.Certificate
}

// distributions are the names of the files' authorities.
var distributions = map[string]string{
	"almalinux": "AlmaLinux", "centos": "CentOS", "debian": "Debian", "fedora": "Fedora", "opensuse": "openSUSE",
	"oracle": "Oracle Linux", "redhat": "Red Hat", "rocky": "Rocky Linux", "suse": "SUSE", "ubuntu": "Ubuntu",
}

var builtIn = sync.OnceValue(func() []Authority {
	entries, err := files.ReadDir("certificates")
	if err != nil {
		panic(err) // embedded
	}
	var all []Authority
	for _, e := range entries {
		der, err := files.ReadFile("certificates/" + e.Name())
		if err != nil {
			panic(err)
		}
		name, _, _ := strings.Cut(strings.TrimSuffix(e.Name(), ".der"), "-")
		a, err := ParseAuthority(distributions[name], der)
		if err != nil {
			panic(err)
		}
		all = append(all, a)
	}
	return all
})

// Authorities are the distributions' that are built in.
func Authorities() []Authority { return slices.Clone(builtIn()) }

// ParseAuthority makes an authority of a certificate in DER: one of the user's own.
func ParseAuthority(name string, der []byte) (Authority, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Authority{}, fmt.Errorf("certificate of %s: %w", name, err)
	}
	return Authority{name, c}, nil
}

// Signature is a signature that was verified.
type Signature struct {
	Authority Authority
	Signer    *x509.Certificate
	Digest    []byte // of the file, as Authenticode counts it: SHA-256 or longer
}

func (s Signature) String() string {
	return fmt.Sprintf("%s (%s, issued by %s)", s.Authority.Name, s.Signer.Subject.CommonName, s.Authority.Certificate.Subject.CommonName)
}
