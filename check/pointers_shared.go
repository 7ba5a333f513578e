package check

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

// Two checks judge the functions that views show: whether they are anybody's, and which module has
// which. Each view is read once for both, and of its rows only these functions are kept:
// until something changes that the view was read from.

// shownFunction is a function that a view shows: of nobody, or of a module.
type shownFunction struct {
	column string // that it is in
	owner  string // as a column NAME_owner shows it
	of     string // what names the row
	hooked string // what it hooks, of a function that a module has
	at     virt.Addr
}

// shownFunctions are those of one view.
type shownFunctions struct {
	once sync.Once
	all  []shownFunction
	err  error // what could not be read
}

// maxOfModules bounds what is kept of one view that leads to modules.
const maxOfModules = 10_000

// shown are the functions of nobody and of modules that a view shows in the columns cs.
func (s *Subject) shown(ctx context.Context, v table.View, cs []codeColumn) *shownFunctions {
	p := s.parts
	p.mu.Lock()
	if p.shown == nil {
		p.shown = map[string]*shownFunctions{}
	}
	f := p.shown[v.Name()]
	if f == nil {
		f = &shownFunctions{}
		p.shown[v.Name()] = f
	}
	p.mu.Unlock()
	f.once.Do(func() {
		if table.SpecOf(v).Monitor {
			f.read(ctx, s, v, cs)
			return
		}
		now, _ := conclude(s, "view "+v.Name(), func(s *Subject) (*shownFunctions, bool) {
			now := &shownFunctions{}
			now.read(ctx, s, v, cs)
			nobodys := slices.ContainsFunc(now.all, func(f shownFunction) bool { return f.owner == noOwner })
			return now, !nobodys && now.err == nil && ctx.Err() == nil
		})
		f.all, f.err = now.all, now.err
	})
	return f
}

func (f *shownFunctions) read(ctx context.Context, s *Subject, v table.View, cs []codeColumn) {
	columns := v.Columns()
	names := named(v, columns)
	wanted := slices.Clone(names)
	for _, name := range []string{"probed_symbol", "asked_for", "filter", "pmu", "breakpoint_symbol", "chain", "hook"} { // what a probe, a notifier or a security module is on
		if i := table.ColumnIndex(columns, name); i >= 0 && !slices.Contains(wanted, i) {
			wanted = append(wanted, i)
		}
	}
	hooked := slices.DeleteFunc(slices.Clone(wanted), func(i int) bool { return columns[i].Type == table.Addr })
	judged := slices.ContainsFunc(interceptors, func(i interceptor) bool { return i.view == v.Name() })
	for _, c := range cs {
		wanted = append(wanted, c.at, c.owner)
	}
	var report table.Report
	nobodys, modules := 0, 0
	for row := range table.Rows(ctx, v, s.Look, table.Request{Columns: wanted}, &report) {
		for _, c := range cs {
			owner, at := row[c.owner].Text(), virt.Addr(row[c.at].Uint())
			one := shownFunction{column: columns[c.at].Name, owner: owner, at: at}
			switch {
			// An address that no processor can call was read in the middle of a change.
			case owner == noOwner && s.Linux.Space.Canonical(at):
				one.of = describe(v, names, row)
				nobodys++
			case judged && strings.HasPrefix(owner, "["):
				if modules++; modules > maxOfModules {
					continue
				}
				one.hooked = describe(v, hooked, row)
			default:
				continue
			}
			f.all = append(f.all, one)
		}
		if nobodys >= maxFindings {
			break // the check that reports them ends there, too, and says so
		}
	}
	switch {
	case report.Err != nil:
		f.err = fmt.Errorf("%s: %w", v.Name(), report.Err)
	case modules > maxOfModules:
		f.err = fmt.Errorf("%s: more than %d functions of modules; the rest is left out", v.Name(), maxOfModules)
	case report.Unreadable > 0:
		f.err = fmt.Errorf("%s: %d of %d could not be read: %w", v.Name(), report.Unreadable, report.Rows, report.First)
	}
}
