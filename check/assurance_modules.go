package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
)

// moduleReferences is what modules were compared with.
type moduleReferences struct {
	trust   image.Trust // in the kernel's image
	signed  int         // modules that a key in that image signed
	files   []string    // modules whose file nobody signed, each with that file
	without []string    // modules that were not compared
	alone   []string    // modules of which the guest's own, unsigned file is all there is, though its kernel's modules are signed, each with that file
}

const moduleTextID = "module-text"

// note keeps what modules are compared with.
func (p *parts) note(c *guest.ModuleComparison, kernel image.Trust) {
	if len(c.Trust)+len(c.Without) == 0 {
		return // no modules are loaded
	}
	m := &moduleReferences{trust: kernel}
	unplaced := map[*linux.Module]bool{} // they may have a file, which findings name
	for _, w := range c.Without {
		own := &guest.UnsignedModuleError{}
		if unplaced[w.Module] = true; errors.As(w.Err, &own) {
			m.alone = append(m.alone, w.Module.Name+": "+own.File)
		} else {
			m.without = append(m.without, w.Module.Name)
		}
	}
	for of, t := range c.Trust {
		switch {
		case unplaced[of]:
		case !c.Proves(of):
			m.alone = append(m.alone, of.Name+": "+t.Where)
		case t.Unsigned == nil:
			m.signed++
		default:
			m.files = append(m.files, of.Name+": "+t.String())
		}
	}
	slices.Sort(m.files)
	slices.Sort(m.without)
	slices.Sort(m.alone)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.compared = m
}

// modulesNamed bounds the modules that were not compared, or in vain, that are named.
const modulesNamed = 6

// modulesOf names modules.
func modulesOf(names []string) string {
	text := strings.Join(names[:min(len(names), modulesNamed)], ", ")
	if len(names) > modulesNamed {
		text += ", …"
	}
	return text
}

// assurance is what the comparison of modules proves.
func (m *moduleReferences) assurance(r *Result) Assurance {
	a := Assurance{Subject: "module text", Trust: m.trust, State: Verified}
	places := 0
	for _, f := range r.Findings {
		if f.Check.ID == moduleTextID {
			places++
		}
	}
	var texts []string
	if m.signed > 0 {
		how := "verified by"
		if places > 0 {
			how = "compared with files signed by"
		}
		texts = append(texts, fmt.Sprintf("%s %s the kernel's own keys (the kernel by %s)", plural(m.signed, "module"), how, m.trust))
		if m.trust.Basis != image.Signed {
			a.State = Matches
		}
	}
	if n := len(m.files); n > 0 {
		a.State = Matches
		with := "files that are"
		if n == 1 {
			with = "a file that is"
		}
		texts = append(texts, fmt.Sprintf("%s compared with %s not signed by a key of this kernel (%s)", plural(n, "module"), with, modulesOf(m.files)))
	}
	if r.gapOf(moduleTextID) != nil {
		a.State = Incomplete
		texts = append(texts, "not all of them could be read")
	}
	for _, lack := range []struct {
		names []string
		what  string
	}{
		{m.without, " no reference"},
		{m.alone, " only a file of the guest's own that is not signed as those of this kernel are, which proves nothing"},
	} {
		n := len(lack.names)
		if n == 0 {
			continue
		}
		a.State = Incomplete
		if m.signed+len(m.files) == 0 {
			a.State = Unproven
		}
		have := "have"
		if n == 1 {
			have = "has"
		}
		texts = append(texts, fmt.Sprintf("%s %s%s (%s)", plural(n, "module"), have, lack.what, modulesOf(lack.names)))
	}
	if places > 0 {
		a.State = Differs
		texts = append([]string{"modules differ in " + plural(places, "place") + " from their files"}, texts...)
	}
	a.Text = strings.Join(texts, "; ")
	return a
}
