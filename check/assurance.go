package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/image"
	linuxtext "github.com/outsight-vmi/outsight/linux/text"
)

// Assurance is what a run proves, whether or not it found something: with what a part of the
// guest was compared, and how far that can be believed.
type Assurance struct {
	Subject string // "kernel text"
	State   AssuranceState
	Trust   image.Trust // in what it was compared with; the zero value: nothing
	Text    string      // all of it in one sentence without a full stop
}

// AssuranceState says how a comparison ended.
type AssuranceState string

// The states.
const (
	Verified   AssuranceState = "verified"   // it is what somebody who is trusted has signed
	Matches    AssuranceState = "matches"    // it is what a file says that nobody has signed
	Differs    AssuranceState = "differs"    // it is not what it was compared with
	Incomplete AssuranceState = "incomplete" // not all could be compared
	Unproven   AssuranceState = "unproven"   // there was nothing to compare with
)

// textReference is what the kernel's text was compared with.
type textReference struct {
	trust   image.Trust
	err     error // why there was nothing
	release string
}

const kernelTextID = "kernel-text"

// referenceOf notes what the kernel's text is compared with, if one of the checks does.
func referenceOf(ctx context.Context, l *guest.Look, checks []*Check) *textReference {
	if !slices.ContainsFunc(checks, func(c *Check) bool { return c.ID == kernelTextID }) {
		return nil
	}
	r := &textReference{release: l.Linux.Release}
	_, r.trust, r.err = l.Reference(ctx)
	return r
}

// Assurances are what the run proves. There are none of what was not asked for.
func (r *Result) Assurances() (all []Assurance) {
	if r.text != nil {
		all = append(all, r.textAssurance())
	}
	if r.modules != nil {
		if a := r.modules.assurance(r); a.Text != "" { // else no module is loaded
			all = append(all, a)
		}
	}
	if r.heard != nil {
		all = append(all, r.heard.assurance())
	}
	return all
}

func (r *Result) textAssurance() Assurance {
	a := Assurance{Subject: "kernel text", Trust: r.text.trust}
	gap := r.gapOf(kernelTextID)
	places := 0
	for _, f := range r.Findings {
		if f.Check.ID == kernelTextID {
			places++
		}
	}
	t := r.text.trust
	switch {
	case errors.Is(r.text.err, linuxtext.ErrUnknownSites):
		a.State, a.Text = Unproven, fmt.Sprintf("kernel text not verified: %v", r.text.err)
	case errors.Is(r.text.err, image.ErrNone):
		a.State, a.Text = Unproven, fmt.Sprintf("kernel text not verified: the host, the profiles and the guest's page cache have no boot image of %s, so its code may be anybody's; "+
			"add its vmlinuz or package, from anywhere: outsight profile add vmlinuz-%[1]s", r.text.release)
	case r.text.err != nil:
		a.State, a.Text = Unproven, fmt.Sprintf("kernel text not verified: %v", r.text.err)
	case places > 0:
		a.State, a.Text = Differs, fmt.Sprintf("kernel text differs in %s from %s", plural(places, "place"), t)
	case errors.Is(gap, image.ErrNoRelocations):
		a.State, a.Text = Unproven, fmt.Sprintf("kernel text not verified: %v", gap)
	case gap != nil:
		a.State, a.Text = Incomplete, "kernel text compared only in part with "+t.String()
	case t.Basis == image.Signed:
		a.State, a.Text = Verified, "kernel text verified against "+t.String()
	default:
		a.State, a.Text = Matches, "kernel text matches "+t.String()+": "+limits(t)
	}
	return a
}

// gapOf is why a check could not compare all; nil if it could.
func (r *Result) gapOf(id string) error {
	for _, g := range r.Gaps {
		if slices.ContainsFunc(g.Checks, func(c *Check) bool { return c.ID == id }) {
			return g.Err
		}
	}
	return nil
}

// limits is what a comparison with something that is not signed does not prove.
func limits(t image.Trust) string {
	unsigned := "not signed by anybody who is known"
	switch t.Basis {
	case image.HostFile:
		return unsigned + ", so this proves what the host boots, and not who built it"
	case image.GuestFile:
		return unsigned + ", so this proves little: whoever owns the guest can change both"
	}
	return unsigned + ", so this proves as much as that file does"
}

func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// assure adds to each finding what the run can prove of the guest.
func (r *Result) assure() {
	var texts []string
	for _, a := range r.Assurances() {
		texts = append(texts, a.Text)
	}
	for _, f := range r.Findings {
		f.Reference = strings.Join(texts, "; ")
	}
}
