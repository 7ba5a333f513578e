package check

import (
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/kernel/image/trust"
	"github.com/outsight-vmi/outsight/linux"
	linuxtext "github.com/outsight-vmi/outsight/linux/text"
)

func TestModuleAssurance(t *testing.T) {
	signed, host := image.Trust{Basis: image.Signed, By: "Debian (Signer, issued by CA)", Where: "/vmlinuz"}, image.Trust{Basis: image.HostFile, Where: "/vmlinuz"}
	check, _ := Lookup(moduleTextID)
	found := []*Finding{{Check: check}}
	for _, c := range []struct {
		name  string
		m     moduleReferences
		found []*Finding
		state AssuranceState
		text  string
	}{
		{"all", moduleReferences{trust: signed, signed: 85}, nil, Verified, "85 modules verified by the kernel's own keys (the kernel by Debian's signature (Signer, issued by CA) on /vmlinuz)"},
		{"the host's kernel", moduleReferences{trust: host, signed: 1}, nil, Matches, "1 module verified by the kernel's own keys (the kernel by the host's file /vmlinuz)"},
		{"files", moduleReferences{trust: signed, signed: 2, files: []string{"zfs: the host's file /initrd"}}, nil, Matches, "2 modules verified by …; 1 module compared with a file that is not signed by a key of this kernel (zfs: the host's file /initrd)"},
		{"several files", moduleReferences{trust: host, files: []string{"a: the reference a.ko", "b: the reference b.ko"}}, nil, Matches, "2 modules compared with files that are not signed by a key of this kernel (a: the reference a.ko, b: the reference b.ko)"},
		{"some", moduleReferences{trust: signed, signed: 2, without: []string{"zfs"}}, nil, Incomplete, "2 modules verified by …; 1 module has no reference (zfs)"},
		{"unsigned", moduleReferences{trust: signed, signed: 2, alone: []string{"ext4: /root/ext4.ko in the guest's page cache"}}, nil, Incomplete, "2 modules verified by …; 1 module has only a file of the guest's own that is not signed as those of this kernel are, which proves nothing (ext4: /root/ext4.ko in the guest's page cache)"},
		{"unsigned alone", moduleReferences{trust: signed, alone: []string{"ext4"}}, nil, Unproven, "1 module has only a file of … (ext4)"},
		{"many", moduleReferences{trust: signed, without: strings.Fields("a b c d e f g")}, nil, Unproven, "7 modules have no reference (a, b, c, d, e, f, …)"},
		{"found", moduleReferences{trust: signed, signed: 2}, found, Differs, "modules differ in 1 place from their files; 2 modules …/vmlinuz)"},
	} {
		r := &Result{Findings: c.found, modules: &c.m}
		all := r.Assurances()
		begin, end, cut := strings.Cut(c.text, "…")
		if strings.Contains(c.text, ", …)") {
			begin, end, cut = c.text, "", false
		}
		if len(all) != 1 || all[0].State != c.state || !strings.HasPrefix(all[0].Text, begin) || !strings.HasSuffix(all[0].Text, end) || !cut && all[0].Text != c.text {
			t.Errorf("%s: %+v", c.name, all)
		}
	}
}

// TestUnplaced: a module that has a file and other sizes than that counts as not compared, and
// its finding names the file.
func TestUnplaced(t *testing.T) {
	signed := image.Trust{Basis: image.Signed, By: "Debian", Where: "ext4.ko"}
	placed, other, foreign := &linux.Module{Name: "ext4"}, &linux.Module{Name: "xfs"}, &linux.Module{Name: "zfs"}
	own := image.Trust{Basis: image.GuestFile, Where: "zfs.ko", Unsigned: trust.ErrUnsigned}
	w := linuxtext.Unplaced{Module: other, Err: image.ErrLayout}
	c := &guest.ModuleComparison{Kernel: signed, Trust: map[*linux.Module]image.Trust{placed: signed, other: {Basis: image.Signed, By: "Debian", Where: "xfs.ko"}, foreign: own}, Without: []linuxtext.Unplaced{w, {Module: &linux.Module{Name: "xt"}, Err: &guest.UnsignedModuleError{File: "x.ko"}}}, Signs: true}
	var p parts
	p.note(c, c.Kernel)
	if m := p.compared; m.signed != 1 || len(m.files) != 0 || !slices.Equal(m.without, []string{"xfs"}) || !slices.Equal(m.alone, []string{"xt: x.ko", "zfs: zfs.ko"}) {
		t.Errorf("noted %+v", m)
	}
	if f := foundUnplaced(c, w); f == nil || !strings.HasSuffix(f.Basis, "xfs.ko") {
		t.Errorf("found %+v", f)
	}
}
