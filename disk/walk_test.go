package disk_test

import (
	"fmt"
	"iter"
	"log"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
)

// small is a file system in memory: paths, and where links lead.
type small struct {
	nodes []*entry
}

type entry struct {
	disk.Node
	number   uint64
	mode     uint32
	flags    disk.Flags
	target   string
	children []disk.Entry
}

func (e *entry) Stat() disk.Stat {
	return disk.Stat{Inode: e.number, Mode: e.mode, Flags: e.flags}
}
func (e *entry) Target() (string, error) { return e.target, nil }
func (e *entry) Entries() iter.Seq2[disk.Entry, error] {
	return func(yield func(disk.Entry, error) bool) {
		for _, c := range e.children {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func (s *small) Info() disk.Info          { return disk.Info{Kind: "small"} }
func (s *small) Root() (disk.Node, error) { return s.Node(1) }
func (s *small) Nodes() iter.Seq2[disk.Node, error] {
	return func(func(disk.Node, error) bool) {}
}

func (s *small) Node(number uint64) (disk.Node, error) {
	if number == 0 || number > uint64(len(s.nodes)) {
		return nil, fmt.Errorf("no inode %d", number)
	}
	return s.nodes[number-1], nil
}

func (s *small) add(parent uint64, name string, mode uint32, target string) uint64 {
	e := &entry{number: uint64(len(s.nodes) + 1), mode: mode, target: target}
	s.nodes = append(s.nodes, e)
	if parent > 0 {
		p := s.nodes[parent-1]
		p.children = append(p.children, disk.Entry{Name: name, Inode: e.number, Type: mode})
	}
	return e.number
}

func newSmall() *small {
	s := &small{}
	root := s.add(0, "", disk.TypeDir, "")
	etc := s.add(root, "etc", disk.TypeDir, "")
	s.add(etc, "passwd", disk.TypeRegular, "")
	s.add(etc, "up", disk.TypeLink, "../etc/passwd")
	s.add(etc, "loop", disk.TypeLink, "loop")
	usr := s.add(root, "usr", disk.TypeDir, "")
	lib := s.add(usr, "lib", disk.TypeDir, "")
	s.add(lib, "release", disk.TypeRegular, "")
	s.add(root, "lib", disk.TypeLink, "usr/lib")
	s.add(root, "out", disk.TypeLink, "/../../../../etc")
	return s
}

func TestLookup(t *testing.T) {
	s := newSmall()
	for path, want := range map[string]uint64{
		"/": 1, "": 1, "..": 1, "/etc/passwd": 3, "etc//./passwd": 3, "/etc/up": 3, "/lib/release": 8, "/lib/../etc": 0, "/out/passwd": 3,
		"/lib/../lib": 7, "/etc/loop": 0, "/etc/passwd/x": 0, "/none": 0,
	} {
		n, err := disk.Lookup(s, path, true)
		switch {
		case want == 0 && err == nil:
			t.Errorf("%s: inode %d", path, n.Stat().Inode)
		case want != 0 && err != nil:
			t.Errorf("%s: %v", path, err)
		case want != 0 && n.Stat().Inode != want:
			t.Errorf("%s: inode %d, not %d", path, n.Stat().Inode, want)
		}
	}
	if n, err := disk.Lookup(s, "/etc/up", false); err != nil || n.Stat().Type() != disk.TypeLink {
		t.Errorf("the link itself: %v, %v", n, err)
	}
	s.nodes[1].flags = disk.Casefolded
	if n, err := disk.Lookup(s, "/etc/PassWd", false); err != nil || n.Stat().Inode != 3 {
		t.Errorf("another case: %v, %v", n, err)
	}
}

func TestWalk(t *testing.T) {
	s := newSmall()
	etc := s.nodes[1]
	etc.children = append(etc.children, disk.Entry{Name: "again", Inode: 1}, disk.Entry{Name: "gone", Inode: 99})
	root, err := s.Root()
	if err != nil {
		t.Fatal(err)
	}
	var paths, errs []string
	for f, err := range disk.Walk(s, "/", root) {
		if err != nil {
			errs = append(errs, f.Path)
			continue
		}
		paths = append(paths, f.Path)
	}
	want := "/ /etc /etc/passwd /etc/up /etc/loop /etc/again /usr /usr/lib /usr/lib/release /lib /out"
	if got := strings.Join(paths, " "); got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if !slices.Equal(errs, []string{"/etc/again", "/etc/gone"}) {
		t.Errorf("errors at %v", errs)
	}
}

// Links lead to places of the file system that they are in.
func ExampleLookup() {
	n, err := disk.Lookup(newSmall(), "/out/passwd", true)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n.Stat().Inode)
	// Output: 3
}
