package guest

import (
	"errors"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/kernel/image/trust"
	"github.com/outsight-vmi/outsight/linux"
)

// TestUnsignedModules: where a kernel's modules are signed, a file that only the guest vouches for
// is no reference for one of the kernel's own. Of another module it is kept, and proves nothing.
func TestUnsignedModules(t *testing.T) {
	own := image.Trust{Basis: image.GuestFile, Where: "ext4.ko", Unsigned: trust.ErrUnsigned}
	host := image.Trust{Basis: image.HostFile, Where: "/lib/ext4.ko", Unsigned: trust.ErrUnsigned}
	signed := image.Trust{Basis: image.GuestFile, Where: "loop.ko"}
	theirs, foreign := &linux.Module{Name: "ext4"}, &linux.Module{Name: "zfs", BuildID: "12", Taints: linux.TaintOutOfTree}
	older, loop := &linux.Module{Name: "old", Taints: linux.TaintOutOfTree}, &linux.Module{Name: "loop"}
	file := &image.ModuleFile{}
	for _, c := range []struct {
		name         string
		ext4         image.Trust
		vouched      bool // by a distribution, for the kernel
		loop         bool // a module with a signature is loaded
		signs, taken bool // what follows
	}{
		{"nothing is signed", own, false, false, false, true},
		{"a signed kernel", own, true, false, true, false},
		{"a signed module", own, false, true, true, false},
		{"the host's file", host, true, true, true, true},
	} {
		k := moduleFiles{known: map[moduleKey]moduleFile{
			keyOf(theirs): {file: file, trust: c.ext4}, keyOf(foreign): {file: file, trust: own}, keyOf(older): {file: file, trust: own},
		}}
		if c.loop {
			k.known[keyOf(loop)] = moduleFile{file: file, trust: signed}
		}
		k.settle([]*linux.Module{theirs, foreign, older, loop}, c.vouched)
		f, o := k.known[keyOf(theirs)], k.known[keyOf(older)]
		if k.signs != c.signs || (f.file != nil) != c.taken || (o.file != nil) == c.signs || f.file == nil && (!errors.Is(f.err, ErrUnsignedModule) || !errors.Is(f.err, image.ErrNone)) {
			t.Errorf("%s: %v, %+v, %+v", c.name, k.signs, f, o)
		}
		if k.known[keyOf(foreign)].file == nil {
			t.Errorf("%s: the file of a module of another origin is not taken", c.name)
		}
		of := &ModuleComparison{Signs: k.signs, Trust: map[*linux.Module]image.Trust{theirs: f.trust, foreign: own, loop: signed}}
		if of.Proves(foreign) == c.signs || of.Proves(older) || !of.Proves(loop) {
			t.Errorf("%s: proves %v, %v, %v", c.name, of.Proves(foreign), of.Proves(older), of.Proves(loop))
		}
	}
}

// TestModuleFilesKept: files of modules that are gone are forgotten, and those that were not found
// are looked for again, ever more rarely.
func TestModuleFilesKept(t *testing.T) {
	here, gone := &linux.Module{Name: "here"}, &linux.Module{Name: "gone"}
	k := moduleFiles{known: map[moduleKey]moduleFile{keyOf(here): {err: image.ErrNoModule}, keyOf(gone): {file: &image.ModuleFile{}, size: 10}}}
	if k.size() != 10 {
		t.Errorf("%d bytes", k.size())
	}
	if kept := k.keep([]*linux.Module{here}); len(kept) != 1 || len(k.known) != 1 || k.size() != 0 {
		t.Errorf("kept %v", kept)
	}
	var waited time.Duration
	for range 100 {
		k.settle([]*linux.Module{here}, false)
		f := k.known[keyOf(here)]
		wait := time.Until(f.again)
		if wait < lookAgain/2 || wait > maxLookAgain || wait < waited-time.Second {
			t.Fatalf("looked for again after %v, before after %v", wait, waited)
		}
		waited, f.again = wait, time.Now()
		k.known[keyOf(here)] = f
	}
	if waited < maxLookAgain-time.Second {
		t.Errorf("looked for again after %v", waited)
	}
	k.settle([]*linux.Module{here}, false)
	before := k.known[keyOf(here)]
	if k.settle([]*linux.Module{here}, false); k.known[keyOf(here)] != before {
		t.Error("a look in between puts it off")
	}
}
