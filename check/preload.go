package check

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/image"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "preload",
		Title:     "Libraries that were put in front of those of the programs",
		Severity:  High,
		Technique: "T1574.006", // Dynamic Linker Hijacking
		Source:    "LD_PRELOAD and LD_AUDIT in the environment of processes, /etc/ld.so.preload in the dentry and page cache, the dynamic linker's list of objects (struct link_map), and which libraries nearly all processes map though no image asks for them",
		Proves: `The dynamic linker was told to load a library before all others: by a variable that names a place where no package puts libraries, or by /etc/ld.so.preload, which every
dynamic program obeys; or its own list has a library where it puts what is preloaded, and nothing told it to, as after it was changed itself; or nearly all dynamic processes map a library that none of their images asks for. Libraries of rootkits hide files, processes and sockets in this way from the programs
that load them; from outside they are in plain sight.`,
		Blind: `A preloaded library from a folder of packages, named in the environment alone: that is how jemalloc, fakeroot and the like are used. /etc/ld.so.preload that
nobody looked at since the kernel forgot it. Libraries that a program links against, replaced in their place on the disk.`,
		Next: `Take the library out with "outsight extract TARGET --pid PID --address ADDRESS --elf -o FILE" (the view libs shows where it is), or with "outsight recover TARGET PATH -o FILE". The view env shows
which processes got the variable, and tree from whom.`,
		Example: `A rootkit named its library in /etc/ld.so.preload:

    $ outsight check lab:demo --only preload -o json | jq -r '.title, .seen'
    /etc/ld.so.preload makes every dynamic program load /dev/shm/.x.so
    /dev/shm/.x.so`,
		Kept: true,
		Run:  preloads,
	})
}

func preloads(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		ps, err := s.Programs()
		if err != nil {
			yield(nil, err)
			return
		}
		for f, err := range s.preloadFiles(ctx, ps) {
			if !yield(f, err) {
				return
			}
		}
		reader := s.Linux.NewProcessReader()
		for _, p := range ps.all {
			// What cannot be read is swapped out: the view env reports it.
			vars, _ := reader.Environment(p.Task)
			if f := p.preloaded(vars); f != nil && !yield(f, nil) {
				return
			}
		}
		for f, err := range s.preloadOrder(ctx, ps) {
			if !yield(f, err) {
				return
			}
		}
		for _, f := range s.prevalent(ps) {
			if !yield(f, nil) {
				return
			}
		}
	}
}

// libraryNames are the libraries that a list for the dynamic linker names. One without a
// slash is looked for where packages put them.
func libraryNames(list string) []string {
	return strings.FieldsFunc(list, func(c rune) bool { return c == ' ' || c == ':' || c == '\t' || c == '\n' || c == '\r' || c == 0 })
}

// preloaded is the finding about variables that make a process load a library from where no
// package puts one.
func (p *program) preloaded(vars []linux.EnvVariable) *Finding {
	for _, v := range vars {
		if v.Name != "LD_PRELOAD" && v.Name != "LD_AUDIT" {
			continue
		}
		for _, name := range libraryNames(v.Value) {
			if !strings.Contains(name, "/") || !strange(name) {
				continue
			}
			f := p.finding(fmt.Sprintf("was told by %s to load %s", v.Name, name), Possible)
			f.Severity = Medium
			if temporary(name) {
				f.Severity, f.Confidence = High, Likely
			}
			f.Expected, f.Seen = "libraries from where packages put them", v.Name+"="+v.Value
			f.nextAddr, f.nextPath = p.mapped(name), name
			for _, m := range p.maps {
				if m.Path == name {
					f.Evidence = append(f.Evidence, Evidence{Text: "the library is mapped", Addr: m.Start})
					break
				}
			}
			f.Show = fmt.Sprintf("outsight env {} --pid %d", p.PID)
			return f
		}
	}
	return nil
}

const maxPreload = 4096 // bytes of ld.so.preload that are read

// preloadFiles are the findings about /etc/ld.so.preload, in each root that processes have.
func (s *Subject) preloadFiles(ctx context.Context, ps *programs) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		roots := map[virt.Addr]bool{0: true}
		for _, p := range ps.all {
			if roots[p.root] {
				continue
			}
			roots[p.root] = true
			f, err := s.preloadFile(ctx, ps, p)
			if (f != nil || err != nil) && !yield(f, err) {
				return
			}
		}
	}
}

func (s *Subject) preloadFile(ctx context.Context, ps *programs, p *program) (*Finding, error) {
	at := p.root
	for _, name := range []string{"etc", "ld.so.preload"} {
		d, is, err := ps.look(ctx, at, name)
		if err != nil || is != hasName {
			return nil, err
		}
		at = d
	}
	o, err := s.Linux.InodesLayout()
	if err != nil {
		return nil, err
	}
	r := s.Linux.Reader()
	inode, super := r.Pointer(at, ps.o.inode), r.Pointer(at, ps.o.super)
	if r.Err != nil {
		return nil, r.Err
	}
	sb, err := s.Linux.SuperBlock(super, o)
	if err != nil {
		return nil, err
	}
	i, err := s.Linux.Inode(&r, inode, sb, o)
	if err != nil {
		return nil, err
	}
	if i.Size == 0 {
		return nil, nil
	}
	text := s.cachedText(ctx, i)
	names := libraryNames(text)
	f := &Finding{
		Severity: Medium, Confidence: Possible,
		Title:  "/etc/ld.so.preload makes every dynamic program load " + strings.Join(names, " and "),
		Object: Object{Kind: "file", Name: "/etc/ld.so.preload", Addr: inode}, Expected: "no such file, or an empty one", Seen: strings.Join(names, " "),
		Evidence: []Evidence{{Text: "its inode", Addr: inode}, {Text: fmt.Sprintf("the root is that of process %d", p.PID), Addr: p.root}},
		Basis:    "dentry and page cache of the guest's kernel", Show: "outsight pagecache {} --where 'path == \"/etc/ld.so.preload\"'",
	}
	if len(names) == 0 {
		f.Title, f.Seen = "/etc/ld.so.preload holds something", fmt.Sprintf("%d bytes, which are not in memory", i.Size)
	}
	if slices.ContainsFunc(names, temporary) {
		f.Severity, f.Confidence = High, Likely
	}
	return f, nil
}

// cachedText is the beginning of a file, as far as it is in memory.
func (s *Subject) cachedText(ctx context.Context, i *linux.INode) string {
	b := make([]byte, min(i.Size, maxPreload))
	for c, err := range s.Linux.CachedPages(ctx, i) {
		if err != nil || c.Offset >= uint64(len(b)) {
			break
		}
		if part := b[c.Offset:min(uint64(len(b)), c.Offset+c.Size)]; c.Valid && !c.Swapped {
			if _, err := s.Linux.Memory.ReadAt(part, c.PA); err != nil {
				break
			}
		}
	}
	return string(bytes.Trim(b, "\x00"))
}

const (
	fewDynamic = 5   // processes: of fewer, nearly all says nothing
	fewKinds   = 3   // executables: workers of one, as of udevd while a machine boots, say nothing of the others
	mostOf     = 0.8 // of the dynamic processes are nearly all of them
	maxAsked   = 4   // processes that are looked at for who asks for a library
)

// library is a file that processes have mapped as one.
type library struct {
	image *linux.MappedImage
	users []*program
}

// fileID is what distinguishes files.
type fileID struct {
	device linux.Device
	inode  uint64
}

// prevalent are the findings about libraries that nearly all dynamic processes have mapped,
// and that lie where no package puts one, or that nothing asks for.
func (s *Subject) prevalent(ps *programs) (fs []*Finding) {
	libraries := map[fileID]*library{}
	images := map[*program][]*linux.MappedImage{}
	for _, p := range ps.all {
		its := linux.ImagesAmong(p.maps)
		if !slices.ContainsFunc(its, func(i *linux.MappedImage) bool { return isLinker(i.Path) }) {
			continue
		}
		images[p] = its
		for _, i := range its {
			id := fileID{i.Device, i.Inode}
			if libraries[id] == nil {
				libraries[id] = &library{image: i}
			}
			if l := libraries[id]; len(l.users) == 0 || l.users[len(l.users)-1] != p {
				l.users = append(l.users, p)
			}
		}
	}
	dynamic := len(images)
	if dynamic < fewDynamic {
		return nil
	}
	for _, l := range libraries {
		if float64(len(l.users)) < mostOf*float64(dynamic) || isLinker(l.image.Path) || l.image.Path == l.users[0].Exe {
			continue
		}
		name := l.image.Path
		f := &Finding{
			Confidence: Likely,
			Object:     Object{Kind: "library", Name: name},
			Seen:       fmt.Sprintf("%s, mapped by %d of %d dynamic processes", name, len(l.users), dynamic),
			Evidence:   []Evidence{{Text: fmt.Sprintf("where process %d has it", l.users[0].PID), Addr: l.image.Start}},
			Basis:      "mappings of all processes, and what their ELF images ask for",
			Show:       fmt.Sprintf("outsight libs {} --where 'path == %q'", name),
		}
		f.nextPID, f.nextAddr, f.nextPath = l.users[0].PID, l.image.Start, name
		switch {
		case strange(name):
			f.Title = "nearly all dynamic processes have mapped " + name + ", which no package puts there"
			f.Expected = "libraries from where packages put them"
		case kinds(l.users) >= max(fewKinds, int(mostOf*float64(kinds(slices.Collect(maps.Keys(images)))))) && s.unasked(l, images):
			f.Severity, f.Confidence = Medium, Possible
			f.Title = "nearly all dynamic processes have mapped " + name + ", though no program or library of theirs asks for it"
			f.Expected = "libraries that an image names in DT_NEEDED"
		default:
			continue
		}
		fs = append(fs, f)
	}
	return fs
}

// kinds counts the executables of processes.
func kinds(all []*program) int {
	exes := map[string]bool{}
	for _, p := range all {
		exes[p.Exe] = true
	}
	return len(exes)
}

// isLinker reports whether a file is the dynamic linker.
func isLinker(name string) bool {
	base := path.Base(name)
	return strings.HasPrefix(base, "ld-linux") || strings.HasPrefix(base, "ld-musl") || strings.HasPrefix(base, "ld-2.")
}

// unasked reports whether nothing in the processes that have mapped a library asks for it.
// What cannot be read may ask.
func (s *Subject) unasked(l *library, images map[*program][]*linux.MappedImage) bool {
	for _, p := range l.users[:min(len(l.users), maxAsked)] {
		space, err := s.Linux.UserSpace(p.MM)
		if err != nil {
			return false
		}
		memory := s.Linux.FilledMemory(space, p.maps)
		names := []string{path.Base(l.image.Path)}
		for _, i := range images[p] {
			if i.Inode == l.image.Inode && i.Device == l.image.Device {
				d, err := image.DynamicOf(memory, i.Start)
				if err != nil {
					return false
				}
				names = append(names, d.Name)
			}
		}
		for _, i := range images[p] {
			d, err := image.DynamicOf(memory, i.Start)
			if err != nil {
				return false
			}
			if slices.ContainsFunc(d.Needed, func(n string) bool { return slices.Contains(names, path.Base(n)) }) {
				return false
			}
		}
	}
	return true
}
