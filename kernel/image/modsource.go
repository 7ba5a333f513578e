package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/outsight-vmi/outsight/kernel/archive"
)

// ModuleID names a module of a kernel.
type ModuleID struct {
	Kernel  string // build-id of the kernel that loaded it
	Release string // of that kernel, as uname -r prints it
	Name    string // as /proc/modules has it, with underscores
	BuildID string // of the module itself, lower-case hex; empty if unknown
}

// ErrModule says that a file is not a module of an x86-64 kernel, or is damaged.
var ErrModule = errors.New("not a kernel module for x86-64")

// ErrNoModule says that a source does not have a module. It is an [ErrNone].
var ErrNoModule = fmt.Errorf("no file of this module: %w", ErrNone)

// ModuleSource gives the files of kernel modules. A [Source] may be one too.
type ModuleSource interface {
	// Module is a module's file (.ko), unpacked, with the signature at its end if it has one,
	// and what it is believed for. If there are several of a name, the one with the build-id is
	// meant. Errors wrap [ErrNone] if the source works, but does not have it.
	Module(ctx context.Context, id ModuleID) ([]byte, Trust, error)
}

// maxModule bounds a module's file. The largest of distributions, amdgpu, has 30 MiB
// without debug information.
const maxModule = 256 << 20

// ModuleName is the name of the module in a file of that path; ok is false if it is none.
func ModuleName(path string) (name string, ok bool) {
	name = filepath.Base(path)
	for _, suffix := range []string{"", ".xz", ".zst", ".gz"} {
		if stem, ko := strings.CutSuffix(name, ".ko"+suffix); ko && stem != "" {
			return strings.ReplaceAll(stem, "-", "_"), true
		}
	}
	return "", false
}

// UnpackModule unpacks a module's file, if it is packed (.ko.xz, .ko.zst, .ko.gz).
func UnpackModule(b []byte) ([]byte, error) {
	if bytes.HasPrefix(b, []byte("\x7fELF")) {
		return b, nil
	}
	r, err := archive.Unpack(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModule, err)
	}
	defer r.Close()
	out, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrModule, err)
	case len(out) > maxModule:
		return nil, fmt.Errorf("%w: it unpacks to more than %d MiB", ErrModule, maxModule>>20)
	}
	return out, nil
}
