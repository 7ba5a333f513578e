package check_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/reference"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
)

// TestGuestAssurance: what a check of Debian's kernel proves, and says so, with each of the
// references that there can be: the host's file, a profile, the guest's own file as Debian
// signed it and changed, and none.
func TestGuestAssurance(t *testing.T) {
	labtest.NeedQEMU(t)
	kernel, err := lab.FindKernel(t.Context(), lab.DefaultKernel, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	const own = "/boot/vmlinuz"
	g := labtest.Up(t, lab.Options{Memory: 512 << 20, Files: map[string]string{own: kernel.Vmlinuz}})
	store := t.TempDir()
	if _, err := reference.Open(store, "").Add(t.Context(), kernel.Vmlinuz); err != nil {
		t.Fatal(err)
	}
	only, err := check.Select([]string{"kernel-text"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const signed = "kernel text verified against Debian's signature (Debian Secure Boot Signer "
	for _, c := range []struct {
		name     string
		hostFile bool   // the host boots it by itself
		profiles string // folder
		do       string // in the guest, before
		state    check.AssuranceState
		text     string // which it begins with
		where    string // which is in it
	}{
		{"the host's file", true, "", "true", check.Verified, signed, kernel.Vmlinuz},
		{"a profile", false, store, "true", check.Verified, signed, "on profile "},
		{"the guest's own file", false, "", "true", check.Verified, signed, own + " in the guest's page cache"},
		{
			"its own file, its signature changed", false, "", "dd if=/dev/zero of=" + own + " bs=1 count=64 conv=notrunc seek=$(($(wc -c <" + own + ") - 200))",
			check.Matches, "kernel text matches the guest's own file ", "can change both",
		},
		{"none", false, "", "rm " + own, check.Unproven, "kernel text not verified: ", "outsight profile add vmlinuz-" + kernel.Release},
	} {
		labtest.Output(t, g, c.do)
		m, err := local.Host().Open(t.Context(), "lab:"+g.Name, vm.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !c.hostFile {
			m.Kernel = "" // as of a machine that boots by its firmware
		}
		s, err := guest.Attach(t.Context(), m, guest.Options{Profiles: c.profiles})
		if err != nil {
			t.Fatal(err)
		}
		r, err := check.Run(t.Context(), s, only)
		if err := errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
		all := r.Assurances()
		if len(all) != 1 || all[0].State != c.state || !strings.HasPrefix(all[0].Text, c.text) || !strings.Contains(all[0].Text, c.where) {
			t.Errorf("%s: %+v", c.name, all)
			continue
		}
		t.Logf("%s: %s", c.name, all[0].Text)
		if len(r.Findings) > 0 || len(r.Gaps) > 0 {
			t.Errorf("%s: found %v, gaps %v", c.name, r.Findings, r.Gaps)
		}
	}
}
