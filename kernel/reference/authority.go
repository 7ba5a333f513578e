package reference

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// authorityFile is an authority as the store has it.
type authorityFile struct {
	Entry
	DER []byte
}

// ErrCertificate says that a file holds no certificate.
var ErrCertificate = errors.New("no X.509 certificate in PEM or DER")

// maxCertificates bounds the certificates of one file, and maxCertificateFile its size.
const (
	maxCertificates    = 64
	maxCertificateFile = 1 << 20
)

// Trust adds the certificates in a file, in PEM or DER: what they signed, directly or through
// others, counts as signed from now on. An empty name is that of the certificate's subject.
func (s *Store) Trust(file, name string) ([]*Entry, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCertificateFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxCertificateFile {
		return nil, fmt.Errorf("%s: %w: it is larger than %d MiB", file, ErrCertificate, maxCertificateFile>>20)
	}
	certificates, err := parseCertificates(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var added []*Entry
	for _, c := range certificates {
		a := authorityFile{DER: c.Raw, Entry: *DescribeAuthority(name, c)}
		a.From, a.Added = filepath.Base(file), time.Now().UTC()
		text, err := json.Marshal(a)
		if err != nil {
			return added, err
		}
		if len(text) > maxMeta {
			return added, fmt.Errorf("%s: %w: one of %d bytes", file, ErrCertificate, len(c.Raw))
		}
		if err := s.write(authoritiesDir, a.ID+metaEnd, text); err != nil {
			return added, err
		}
		added = append(added, &a.Entry)
	}
	return added, nil
}

// DescribeAuthority is the entry of an authority. An empty name is that of the certificate's
// subject.
func DescribeAuthority(name string, c *x509.Certificate) *Entry {
	sum := sha256.Sum256(c.Raw)
	id := hex.EncodeToString(sum[:])
	return &Entry{Kind: Authority, ID: id, Name: cmp.Or(name, c.Subject.CommonName, c.Subject.String()), Size: int64(len(c.Raw)), SHA256: id}
}

// parseCertificates reads certificates in PEM, or one in DER.
func parseCertificates(b []byte) (all []*x509.Certificate, err error) {
	if !bytes.Contains(b, []byte("-----BEGIN ")) {
		c, err := x509.ParseCertificate(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
		}
		return []*x509.Certificate{c}, nil
	}
	for len(all) < maxCertificates {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		if b = rest; block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, ErrCertificate
	}
	return all, nil
}

func readAuthorityMeta(name string) (*Entry, error) {
	a := authorityFile{Entry: Entry{path: name}}
	if err := readMeta(name, &a); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(a.DER)
	if id := hex.EncodeToString(sum[:]); a.ID != id || strings.TrimSuffix(filepath.Base(name), metaEnd) != id {
		return nil, errMeta
	}
	return &a.Entry, nil
}

// Certificate is that of an authority.
func (e *Entry) Certificate() (*x509.Certificate, error) {
	var a authorityFile
	if err := readMeta(e.path, &a); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(a.DER)
}
