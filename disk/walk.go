package disk

import (
	"errors"
	"fmt"
	"iter"
	"path"
	"strings"
)

const (
	maxLinks = 40   // as Linux follows them in one path
	maxDepth = 4096 // of directories: what a path of Linux's can name
)

// ErrNotFound says that a directory has no such name.
var ErrNotFound = errors.New("no such file or directory")

// Lookup finds a file by its path. Symbolic links are followed, also one at the path's end if follow is set; they lead to places
// of this file system, never of the host's.
func Lookup(f FileSystem, name string, follow bool) (Node, error) {
	root, err := f.Root()
	if err != nil {
		return nil, err
	}
	// A way is kept, not a path: ".." behind a link leads where the link led.
	way := []Node{root}
	rest := names(name)
	for links := 0; len(rest) > 0; {
		first := rest[0]
		rest = rest[1:]
		here := way[len(way)-1]
		switch {
		case first == "..":
			way = way[:max(len(way)-1, 1)]
			continue
		case here.Stat().Type() != TypeDir:
			return nil, fmt.Errorf("%s: not a directory", name)
		case len(way) > maxDepth:
			return nil, fmt.Errorf("%s: too many directories", name)
		}
		n, err := child(f, here, first)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if n.Stat().Type() != TypeLink || len(rest) == 0 && !follow {
			way = append(way, n)
			continue
		}
		if links++; links > maxLinks {
			return nil, fmt.Errorf("%s: too many symbolic links", name)
		}
		target, err := n.Target()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if strings.HasPrefix(target, "/") {
			way = way[:1]
		}
		rest = append(names(target), rest...)
	}
	return way[len(way)-1], nil
}

func names(p string) []string {
	return strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
}

// child finds a name in a directory. A damaged entry does not hide the others.
func child(f FileSystem, dir Node, name string) (Node, error) {
	if name == "." {
		return dir, nil
	}
	folds := dir.Stat().Flags&Casefolded != 0
	var damage error
	for e, err := range dir.Entries() {
		if err != nil {
			damage = err
			continue
		}
		if e.Name == name || folds && strings.EqualFold(e.Name, name) {
			return f.Node(e.Inode)
		}
	}
	if damage != nil {
		return nil, damage
	}
	return nil, ErrNotFound
}

// A Found is what a walk finds.
type Found struct {
	Path  string // from the root of the file system, with a slash in front
	Entry Entry
	Node  Node // nil if its inode could not be read
}

// Walk finds everything below a directory, the directory itself first; what is in a directory follows it. Links are not followed. A directory that was
// found before is not entered again: on a damaged file system it may be within itself.
func Walk(f FileSystem, from string, dir Node) iter.Seq2[Found, error] {
	return func(yield func(Found, error) bool) {
		from = path.Clean("/" + from)
		s := dir.Stat()
		if !yield(Found{Path: from, Entry: Entry{Name: path.Base(from), Inode: s.Inode, Type: s.Type()}, Node: dir}, nil) || s.Type() != TypeDir {
			return
		}
		w := walker{f: f, yield: yield, seen: map[uint64]bool{s.Inode: true}}
		w.below(from, dir, 0)
	}
}

type walker struct {
	f     FileSystem
	yield func(Found, error) bool
	seen  map[uint64]bool
}

// below walks a directory; false says that nobody wants more.
func (w *walker) below(at string, dir Node, depth int) bool {
	for e, err := range dir.Entries() {
		if err != nil {
			if !w.yield(Found{Path: at}, err) {
				return false
			}
			continue
		}
		file := Found{Path: strings.TrimSuffix(at, "/") + "/" + e.Name, Entry: e}
		if file.Node, err = w.f.Node(e.Inode); err != nil {
			file.Node = nil
			if !w.yield(file, err) {
				return false
			}
			continue
		}
		if !w.yield(file, nil) {
			return false
		}
		if file.Node.Stat().Type() != TypeDir {
			continue
		}
		switch {
		case w.seen[e.Inode]:
			err = fmt.Errorf("%s: this directory is in another one, too", file.Path)
		case depth >= maxDepth:
			err = fmt.Errorf("%s: too many directories within each other", file.Path)
		default:
			w.seen[e.Inode] = true
			if !w.below(file.Path, file.Node, depth+1) {
				return false
			}
			continue
		}
		if !w.yield(file, err) {
			return false
		}
	}
	return true
}
