package check

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/image"
	"github.com/outsight-vmi/outsight/virt"
)

// preloadOrder are findings about libraries that the dynamic linker has in front of all that
// the program asks for, which is where it puts what is preloaded, though neither the
// environment nor /etc/ld.so.preload names them: the linker itself was changed, or the
// file was put away since.
func (s *Subject) preloadOrder(ctx context.Context, ps *programs) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		reader := s.Linux.NewProcessReader()
		listed := map[virt.Addr]bool{} // roots with an ld.so.preload
		loaded := orderedLibraries{}
		for _, p := range ps.all {
			if ctx.Err() != nil {
				return
			}
			first := s.firstLibraries(p)
			if len(first) == 0 {
				continue
			}
			vars, _ := reader.Environment(p.Task)
			if !intactEnvironment(vars) || slices.ContainsFunc(vars, func(v linux.EnvVariable) bool { return v.Name == "LD_PRELOAD" && v.Value != "" }) {
				continue // named there: preloaded judges it; or overwritten by the program's title
			}
			if has, known := listed[p.root]; has || !known {
				f, err := s.preloadFile(ctx, ps, p)
				if listed[p.root] = f != nil; f != nil || err != nil {
					continue // that is a finding of its own
				}
			}
			for _, o := range first {
				loaded.add(p, o)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(loaded)) {
			if !yield(loaded[name].finding(name), nil) {
				return
			}
		}
	}
}

// orderedLibraries are libraries that nothing names, with the processes that have them in front of their own.
type orderedLibraries map[string]*orderedLibrary

type orderedLibrary struct {
	users []*program
	links []virt.Addr // its struct link_map in each of them
}

func (all orderedLibraries) add(p *program, o image.Linked) {
	l := all[o.Name]
	if l == nil {
		l = &orderedLibrary{}
		all[o.Name] = l
	}
	if n := len(l.users); n == 0 || l.users[n-1] != p {
		l.users, l.links = append(l.users, p), append(l.links, o.Addr)
	}
}

// finding is one for all processes that have the library.
func (l *orderedLibrary) finding(name string) *Finding {
	const shown = 8 // processes that are named
	who, pids := l.users[0].String()+" has "+name+" loaded in front of its own libraries", []string{}
	if len(l.users) > 1 {
		who = fmt.Sprintf("%d processes have %s loaded in front of their own libraries", len(l.users), name)
	}
	f := &Finding{
		Confidence: Likely, Title: who + ", and nothing says so", Object: Object{Kind: "library", Name: name},
		Aspect:   "order",
		Expected: "in front of what the program asks for are libraries that LD_PRELOAD or /etc/ld.so.preload names",
		Basis:    "the dynamic linker's list in the process, what the program asks for, its environment",
		Show:     fmt.Sprintf("outsight libs {} --where 'path == %q'", name),
	}
	f.nextPID, f.nextAddr, f.nextPath = l.users[0].PID, l.users[0].mapped(name), name
	if !strange(name) {
		f.Severity = Medium
	}
	for i, p := range l.users[:min(len(l.users), shown)] {
		pids = append(pids, strconv.Itoa(int(p.PID)))
		f.Evidence = append(f.Evidence, Evidence{Text: "its struct link_map in " + p.String(), Addr: l.links[i]})
	}
	if more := len(l.users) - shown; more > 0 {
		pids = append(pids, fmt.Sprintf("and %d more", more))
	}
	f.Seen = fmt.Sprintf("%s, and no LD_PRELOAD in the environment of %s", name, strings.Join(pids, ", "))
	return f
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// intactEnvironment reports whether what exec put there is there still: programs write their
// title over it, from its beginning.
func intactEnvironment(vars []linux.EnvVariable) bool {
	return len(vars) > 0 && vars[0].Set && variableName.MatchString(vars[0].Name)
}

// firstLibraries are the objects that a process has in front of the first that its program
// asks for; what cannot be read has none.
func (s *Subject) firstLibraries(p *program) []image.Linked {
	images := linux.ImagesAmong(p.maps)
	if !slices.ContainsFunc(images, func(i *linux.MappedImage) bool { return isLinker(i.Path) }) {
		return nil
	}
	main := slices.IndexFunc(images, func(i *linux.MappedImage) bool { return i.Path == p.Exe })
	if main < 0 {
		return nil
	}
	space, err := s.Linux.UserSpace(p.MM)
	if err != nil {
		return nil
	}
	memory := s.Linux.FilledMemory(space, p.maps)
	objects, err := image.LinkMap(memory, images[main].Start)
	if err != nil || len(objects) < 2 {
		return nil
	}
	dynamic, err := image.DynamicOf(memory, images[main].Start)
	if err != nil {
		return nil
	}
	return inFront(withoutLinker(objects[1:], images), dynamic.Needed, p.vdso, func(o image.Linked) string {
		for _, i := range images {
			if o.Dynamic >= i.Start && o.Dynamic < i.End {
				if d, err := image.DynamicOf(memory, i.Start); err == nil {
					return d.Name
				}
			}
		}
		return ""
	})
}

// withoutLinker are the objects but for the dynamic linker itself, which is the first of its list until it has
// loaded what the program asks for. A second one is not left out.
func withoutLinker(objects []image.Linked, images []*linux.MappedImage) []image.Linked {
	var linkers []*linux.MappedImage
	for _, i := range images {
		if isLinker(i.Path) {
			linkers = append(linkers, i)
		}
	}
	if len(linkers) != 1 {
		return objects
	}
	return slices.DeleteFunc(slices.Clone(objects), func(o image.Linked) bool { return o.Dynamic >= linkers[0].Start && o.Dynamic < linkers[0].End })
}

// inFront are the objects, without the program itself, that come before the first that the
// program asks for. Where nothing that it asks for is among them, nothing can be said.
func inFront(objects []image.Linked, needed []string, vdso virt.Addr, soname func(image.Linked) string) (first []image.Linked) {
	const vdsoSize = 4 << 12
	for _, o := range objects {
		if vdso != 0 && o.Dynamic >= vdso && o.Dynamic < vdso+vdsoSize || o.Name == "linux-vdso.so.1" || o.Name == "linux-gate.so.1" {
			continue
		}
		asked := func(n string) bool { return path.Base(n) == path.Base(o.Name) || n == soname(o) }
		if slices.ContainsFunc(needed, asked) {
			return first
		}
		first = append(first, o)
	}
	return nil
}
