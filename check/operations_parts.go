package check

import (
	"context"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/virt"
)

// In a busy guest files are opened and processes started all the time, but hardly a driver, a protocol or a setting is added.
// So each kind of object is judged by itself, and again only if something changed that was read for it.

// opsParts are the kinds of objects that have tables, in the order in which what they have is reported.
var opsParts = []struct {
	name string
	walk func(*opsWalk, context.Context, *opsLayout)
}{
	{"files", (*opsWalk).files},
	{"proc entries", (*opsWalk).procEntries},
	{"protocols", (*opsWalk).protocols},
	{"networks", (*opsWalk).networks},
	{"devices", (*opsWalk).devices},
	{"terminals", (*opsWalk).terminals},
	{"file systems", (*opsWalk).superBlocks},
	{"sysctls", (*opsWalk).sysctls},
	{"tasks", (*opsWalk).tasks},
	{"mappings", (*opsWalk).mappings},
	{"families", (*opsWalk).families},
	{"link handlers", (*opsWalk).linkHandlers},
}

// opsPart is what one part judged, and found.
type opsPart struct {
	seen   map[opsKey]bool
	faulty map[virt.Addr]bool
	found  []opsResult
}

func operationsTables(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		if _, err := s.Owners(); err != nil {
			yield(nil, err)
			return
		}
		o, err := opsLayoutOf(s.Linux)
		if err != nil {
			yield(nil, err)
			return
		}
		var before []*opsPart
		for _, p := range opsParts {
			part, _ := conclude(s, "operations of "+p.name, func(s *Subject) (*opsPart, bool) {
				w, err := newOpsWalk(ctx, s)
				if err != nil {
					return &opsPart{found: []opsResult{{err: err}}}, false
				}
				p.walk(w, ctx, o)
				return &opsPart{w.seen, w.faulty, w.results}, len(w.results) == 0 && ctx.Err() == nil
			})
			if ctx.Err() != nil {
				return
			}
			for _, r := range part.found {
				if !r.knownTo(before) && !yield(r.f, r.err) {
					return
				}
			}
			before = append(before, part)
		}
	}
}

// knownTo reports whether an earlier part said what is to be said of the table.
func (r *opsResult) knownTo(before []*opsPart) bool {
	return slices.ContainsFunc(before, func(p *opsPart) bool {
		return r.key.table != 0 && p.seen[r.key] || r.doubted != 0 && p.faulty[r.doubted]
	})
}
