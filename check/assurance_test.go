package check

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/kernel/image"
	linuxtext "github.com/outsight-vmi/outsight/linux/text"
)

func TestAssurances(t *testing.T) {
	textCheck, other := &Check{ID: kernelTextID}, &Check{ID: "other"}
	signed := image.Trust{Basis: image.Signed, By: "Debian (Signer, issued by CA)", Where: "/vmlinuz"}
	file := func(b image.Basis) *textReference {
		return &textReference{trust: image.Trust{Basis: b, Where: "/vmlinuz", Unsigned: errors.New("x")}, release: "6.12"}
	}
	finding := &Finding{Check: textCheck}
	for _, c := range []struct {
		name  string
		r     Result
		state AssuranceState
		text  string // it begins so, up to …, and ends so
	}{
		{"not asked for", Result{}, "", ""},
		{"signed", Result{text: &textReference{trust: signed}}, Verified, "kernel text verified against Debian's signature (Signer, issued by CA) on /vmlinuz…"},
		{"other findings", Result{text: &textReference{trust: signed}, Findings: []*Finding{{Check: other}}, Gaps: []Gap{{Checks: []*Check{other}}}}, Verified, "kernel text verified…"},
		{"findings", Result{text: &textReference{trust: signed}, Findings: []*Finding{finding, finding}}, Differs, "kernel text differs in 2 places from Debian's signature…"},
		{"a gap", Result{text: &textReference{trust: signed}, Gaps: []Gap{{Checks: []*Check{textCheck}, Err: errors.New("x")}}}, Incomplete, "kernel text compared only in part with Debian's…"},
		{"a vmlinux", Result{text: file(image.UserFile), Gaps: []Gap{{Checks: []*Check{textCheck}, Err: image.ErrNoRelocations}}}, Unproven, "kernel text not verified: …take the vmlinuz"},
		{"the host's", Result{text: file(image.HostFile)}, Matches, "kernel text matches the host's file /vmlinuz: not signed…and not who built it"},
		{"the user's", Result{text: file(image.UserFile)}, Matches, "kernel text matches the reference /vmlinuz: not signed…as much as that file does"},
		{"the guest's", Result{text: file(image.GuestFile)}, Matches, "kernel text matches the guest's own file /vmlinuz: …can change both"},
		{"none", Result{text: &textReference{err: fmt.Errorf("kernel: %w", image.ErrNone), release: "6.12"}}, Unproven, "kernel text not verified: …outsight profile add vmlinuz-6.12"},
		{"not understood", Result{text: &textReference{err: linuxtext.ErrUnknownSites}}, Unproven, "kernel text not verified: …not understood"},
		{"unreadable", Result{text: &textReference{err: errors.New("permission denied")}}, Unproven, "kernel text not verified: …denied"},
	} {
		all := c.r.Assurances()
		if c.state == "" {
			if len(all) != 0 {
				t.Errorf("%s: %+v", c.name, all)
			}
			continue
		}
		begin, end, _ := strings.Cut(c.text, "…")
		if len(all) != 1 || all[0].State != c.state || !strings.HasPrefix(all[0].Text, begin) || !strings.HasSuffix(all[0].Text, end) {
			t.Errorf("%s: %+v", c.name, all)
		}
		c.r.assure()
		for _, f := range c.r.Findings {
			if f.Reference != all[0].Text {
				t.Errorf("%s: a finding says %q", c.name, f.Reference)
			}
		}
	}
}
