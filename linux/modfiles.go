package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/kernel/image"
)

// CachedFile is a file of the guest's that is whole in its page cache.
type CachedFile struct {
	Name  string // the last part of its path
	INode *INode
	Data  []byte
}

// maxModuleFile bounds a module's file that is taken from memory, in bytes.
const maxModuleFile = 64 << 20

// dataless are file systems whose files have no content in memory.
var dataless = []string{"proc", "sysfs", "cgroup", "cgroup2", "tracefs", "debugfs", "securityfs", "pstore", "bpf", "devpts", "sockfs", "pipefs", "anon_inodefs", "bdev", "mqueue", "nsfs"}

// ModuleFiles yields the files of modules that the guest's page cache has: all that are
// called as wanted says. What was read to load a module stays there for a while; in an
// initramfs it stays for good. An error is of one that is not whole, or could not be read.
func (s *System) ModuleFiles(ctx context.Context, wanted func(module string) bool) iter.Seq2[CachedFile, error] {
	return func(yield func(CachedFile, error) bool) {
		l := s.NewProcessReader()
		for sb, err := range s.SuperBlocks(ctx) {
			if err != nil {
				if !yield(CachedFile{}, err) {
					return
				}
				continue
			}
			if slices.Contains(dataless, sb.Type) {
				continue
			}
			for i, err := range s.INodes(ctx, sb) {
				if err != nil { // of a list that changes; what is behind it is not seen
					if !yield(CachedFile{}, err) {
						return
					}
					continue
				}
				if fileType(i.Mode) != "file" || i.Cached == 0 || i.Dentry == 0 {
					continue
				}
				l.r.Err = nil
				name := l.dentryName(i.Dentry)
				module, ok := image.ModuleName(name)
				if l.r.Err != nil || !ok || !wanted(module) {
					continue
				}
				f := CachedFile{Name: name, INode: i}
				if f.Data, err = s.whole(ctx, i); err != nil {
					err = fmt.Errorf("%s: %w", name, err)
				}
				if !yield(f, err) {
					return
				}
			}
		}
	}
}

// whole is the content of a file, if memory has all of it.
func (s *System) whole(ctx context.Context, i *INode) ([]byte, error) {
	if i.Size > maxModuleFile {
		return nil, fmt.Errorf("it has %d bytes, more than the %d MiB that are taken from memory", i.Size, maxModuleFile>>20)
	}
	if i.Cached+i.Swapped < i.Size/2 {
		return nil, fmt.Errorf("%d of its %d bytes are in memory", i.Cached, i.Size)
	}
	var b bytes.Buffer
	var broken error
	missing, err := s.Recover(ctx, i, &b, func(err error) { broken = errors.Join(broken, err) })
	if err = errors.Join(err, broken); err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("from %#x on %d bytes are %s", missing[0].Start, missing[0].End-missing[0].Start, missing[0].Missing)
	}
	return b.Bytes(), nil
}
