package image

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/outsight-vmi/outsight/kernel/image/trust"
)

// ModuleCache keeps modules whose signature was verified, unpacked, by the kernel that
// verifies them: then neither the place where a module was found needs to be searched again
// nor the signature verified. As with boot images, the user's own folder is trusted.
type ModuleCache struct {
	Dir  string              // empty: none
	Keys []*x509.Certificate // of the kernel
}

// maxCachedModules bounds the modules that are kept. Each takes some 300 KiB of disk.
const maxCachedModules = 2048

func (c *ModuleCache) path(id ModuleID) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d %q %q %q\n", cacheVersion, id.Kernel, id.Name, id.BuildID)
	for _, k := range c.Keys {
		h.Write(k.Raw)
	}
	return filepath.Join(c.Dir, hex.EncodeToString(h.Sum(nil)[:16])+".ko")
}

// Get is a module that was kept.
func (c *ModuleCache) Get(id ModuleID) ([]byte, bool) {
	if c.Dir == "" || len(c.Keys) == 0 || id.Kernel == "" {
		return nil, false
	}
	b, err := os.ReadFile(c.path(id))
	return b, err == nil && bytes.HasPrefix(b, []byte("\x7fELF"))
}

// Verify verifies a module's signature by the kernel's keys, and keeps the module if it
// is good.
func (c *ModuleCache) Verify(id ModuleID, b []byte) error {
	if _, err := trust.VerifyModule(b, c.Keys); err != nil {
		return err
	}
	if c.Dir != "" && id.Kernel != "" {
		_ = c.keep(c.path(id), b) // an optimization: the folder may not be writable
	}
	return nil
}

func (c *ModuleCache) keep(path string, b []byte) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(c.Dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // once renamed, it is not there
	_, err = f.Write(b)
	if e := f.Close(); err != nil || e != nil {
		return fmt.Errorf("keep a module: %w", err)
	}
	return os.Rename(f.Name(), path)
}

// Prune removes the oldest modules, and what was left half written.
func (c *ModuleCache) Prune() {
	entries, err := os.ReadDir(c.Dir)
	if c.Dir == "" || err != nil || len(entries) <= maxCachedModules {
		return
	}
	var all []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && (filepath.Ext(e.Name()) == ".ko" || time.Since(info.ModTime()) > time.Hour) {
			all = append(all, info)
		}
	}
	slices.SortFunc(all, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for len(all) > maxCachedModules/2 {
		os.Remove(filepath.Join(c.Dir, all[0].Name()))
		all = all[1:]
	}
}
