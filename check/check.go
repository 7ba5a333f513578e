// Package check judges a guest: it compares what must agree in a healthy one, and names
// what does not. Each check is in a file of its own and looks for one kind of lie or change.
//
// A [Check] is a name, what it proves and cannot see, and an iterator of findings over a
// look. [Run] runs them over one look, so that what they compare is of one time, and takes
// another look at what was found: what a guest was in the middle of has settled by then.
package check

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Severity says how bad it is for the guest's owner if a finding is true.
type Severity string

// The severities, the worst first.
const (
	Critical Severity = "critical" // somebody else controls the kernel
	High     Severity = "high"     // something is hidden, or a process has what it should not
	Medium   Severity = "medium"   // what intruders do and others hardly do
	Low      Severity = "low"      // unusual: to be looked at with others
)

// Severities are all of them, the worst first.
var Severities = []Severity{Critical, High, Medium, Low}

// Confidence says how sure it is that a finding is what its title says.
type Confidence string

// The confidences.
const (
	Certain  Confidence = "certain"  // no state of a healthy guest looks so
	Likely   Confidence = "likely"   // healthy guests that look so are known, and rare
	Possible Confidence = "possible" // it depends on what the guest is for
)

// Check is one thing that is judged.
type Check struct {
	// ID names it, in lower case with dashes. It never changes.
	ID string
	// Title is one line: what it looks for.
	Title string
	// Severity is that of its findings, if they do not have one of their own.
	Severity Severity
	// Technique is the technique of MITRE ATT&CK that a finding is a sign of.
	Technique string
	// Proves says what a finding proves, Blind what the check cannot see, and Next what to
	// do about a finding, in sentences.
	Proves, Blind, Next string
	// Source says, in the kernel's own names, what is compared.
	Source string
	// Example is a worked example in Markdown for its page: what was done to a guest, and what
	// the check showed.
	Example string
	// Steady says that what it judges does not change by itself: what it finds at every look, and
	// each time elsewhere, is not a passing state but something that moves.
	Steady bool
	// Quick says that a look at it costs little enough to be taken between two rounds of all checks:
	// see [Glance].
	Quick bool
	// Kept says that what it finds rests on nothing that changes but the guest's memory, read through its subject: if it
	// found nothing and all that it read is the same at the next look, it is not run again.
	Kept bool
	// Told says that it compares with what the guest's programs say: see [WithAgent], [WithTold].
	Told bool
	// Listens says that it judges what was seen while outsight listened: see [Listen].
	Listens bool
	// Run yields what it finds. An error says what could not be checked: one that is
	// kobj.ErrUnsupported that the guest's kernel does not have it.
	Run func(ctx context.Context, s *Subject) iter.Seq2[*Finding, error]
}

var registry []*Check

// Register adds a check, in an init function of its file.
func Register(c Check) {
	switch {
	case c.ID == "" || strings.Trim(c.ID, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		panic(fmt.Sprintf("check: invalid id %q", c.ID))
	case c.Title == "" || c.Severity == "" || c.Technique == "" || c.Proves == "" || c.Blind == "" || c.Next == "" || c.Source == "" || c.Run == nil:
		panic("check: " + c.ID + " is not documented")
	}
	if _, ok := Lookup(c.ID); ok {
		panic("check: " + c.ID + " is registered twice")
	}
	registry = append(registry, &c)
}

// All are the checks, by their IDs.
func All() []*Check {
	return slices.SortedFunc(slices.Values(registry), func(a, b *Check) int { return strings.Compare(a.ID, b.ID) })
}

// Lookup is the check with an ID.
func Lookup(id string) (*Check, bool) {
	i := slices.IndexFunc(registry, func(c *Check) bool { return c.ID == id })
	if i < 0 {
		return nil, false
	}
	return registry[i], true
}

// Quick are those of checks that [Glance] is for.
func Quick(checks []*Check) []*Check {
	return slices.DeleteFunc(slices.Clone(checks), func(c *Check) bool { return !c.Quick })
}

// Select are the checks that only names, or all if it is empty, without those that skip
// names.
func Select(only, skip []string) ([]*Check, error) {
	for _, id := range slices.Concat(only, skip) {
		if _, ok := Lookup(id); !ok {
			return nil, fmt.Errorf("unknown check %q; outsight check --list shows them", id)
		}
	}
	return slices.DeleteFunc(All(), func(c *Check) bool {
		return len(only) > 0 && !slices.Contains(only, c.ID) || slices.Contains(skip, c.ID)
	}), nil
}
