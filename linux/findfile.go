package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/outsight-vmi/outsight/linux/kobj"
)

// FindFile finds the regular file that the process of t sees at an absolute path, through
// symbolic links as far as they are in memory (XFS and overlays keep none there), ".." taken
// as text; one that was unlinked counts only where no other is there. The error wraps [fs.ErrNotExist] where there is none in memory.
func (s *System) FindFile(ctx context.Context, t Task, name string) (*INode, error) {
	places, err := s.NewProcessReader().Places(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("mounts of task %#x: %w", uint64(t.Addr), err)
	}
	name = path.Clean(name)
	const maxLinks = 40 // MAXSYMLINKS
	for range maxLinks {
		f, err := s.search(ctx, places, name)
		switch {
		case err != nil:
			return nil, err
		case f.file != nil:
			return f.file, nil
		case f.link != "":
			name = f.link
			continue
		case f.unlinked != nil:
			return f.unlinked, nil
		case f.other != "":
			return nil, fmt.Errorf("%s is a %s, no regular file: %w", name, f.other, fs.ErrNotExist)
		case f.broken != nil:
			return nil, fmt.Errorf("%w: %w", f.broken, fs.ErrNotExist)
		case f.unread > 0:
			return nil, fmt.Errorf("the guest has no file %s in memory; %d of them could not be read: %w", name, f.unread, fs.ErrNotExist)
		}
		return nil, fmt.Errorf("the guest has no file %s in memory: %w", name, fs.ErrNotExist)
	}
	return nil, fmt.Errorf("the symbolic links of %s do not come to an end: %w", name, fs.ErrNotExist)
}

// search is what a path led to.
type search struct {
	file, unlinked *INode
	link           string // the path once its first symbolic link was followed
	other          string // what lies there if it is not a regular file
	broken         error  // why a symbolic link on the way could not be followed
	unread         int
}

func (s *System) search(ctx context.Context, places *Places, name string) (f search, err error) {
	linkAt := len(name) + 1 // length of the shortest link's path
	for sb, err := range s.SuperBlocks(ctx) {
		if err != nil {
			f.unread++
			continue
		}
		for i, err := range s.INodes(ctx, sb) {
			if err != nil {
				f.unread++
				continue
			}
			at, deleted, mounted, err := places.Path(i)
			if err != nil {
				f.unread++
				continue
			}
			rest, inside := strings.CutPrefix(name, at)
			if !inside || rest != "" && rest[0] != '/' || !mounted && !deleted {
				continue
			}
			switch kind := fileType(i.Mode); {
			case kind == "symlink" && !deleted && mounted && len(at) < linkAt:
				target, err := s.LinkTarget(i)
				if err != nil {
					f.broken = fmt.Errorf("%s is a symbolic link, and where to is not known: %w", at, err)
					continue
				}
				if !path.IsAbs(target) {
					target = path.Join(path.Dir(at), target)
				}
				f.link, linkAt = path.Join(target, rest), len(at)
			case rest != "":
			case kind == "file" && !deleted:
				f.file = i
				return f, nil
			case kind == "file":
				f.unlinked = i
			case !deleted:
				f.other = kind
			}
		}
	}
	return f, ctx.Err()
}

// LinkTarget is where a symbolic link leads to.
func (s *System) LinkTarget(i *INode) (target string, err error) {
	o, err := s.InodesLayout()
	if err != nil {
		return "", err
	}
	const longest = 4096 // PATH_MAX
	if fileType(i.Mode) != "symlink" || i.Size == 0 || i.Size > longest {
		return "", fmt.Errorf("inode at %#x: %w: no symbolic link", uint64(i.Addr), kobj.ErrBroken)
	}
	r := s.Reader()
	if short := r.Pointer(i.Addr, o.link); short != 0 && r.Err == nil {
		target = r.CString(short, longest)
		return target, r.Err
	}
	pa, ok, err := s.cachedPage(i.Mapping, 0)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", errors.New("not in memory")
	}
	b := make([]byte, i.Size)
	_, err = s.Memory.ReadAt(b, pa)
	return kobj.CString(b), err
}
