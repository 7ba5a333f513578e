package main

import (
	"errors"
	"fmt"
	"iter"
	"path"
	"time"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/where"
)

// A diskFile is a row of the commands that show files of disks.
type diskFile struct {
	name string
	node disk.Node
	stat disk.Stat
}

func newDiskFile(name string, n disk.Node) *diskFile {
	return &diskFile{name: name, node: n, stat: n.Stat()}
}

var typeNames = map[uint32]string{
	disk.TypeFIFO: "fifo", disk.TypeChar: "char", disk.TypeDir: "dir", disk.TypeBlock: "block", disk.TypeRegular: "file", disk.TypeLink: "link", disk.TypeSocket: "socket",
}

// modeText is a mode as ls writes it.
func modeText(mode uint32) string {
	b := []byte("?rwxrwxrwx")
	for t, c := range map[uint32]byte{disk.TypeFIFO: 'p', disk.TypeChar: 'c', disk.TypeDir: 'd', disk.TypeBlock: 'b', disk.TypeRegular: '-', disk.TypeLink: 'l', disk.TypeSocket: 's'} {
		if mode&disk.TypeMask == t {
			b[0] = c
		}
	}
	for i := range 9 {
		if mode>>(8-i)&1 == 0 {
			b[1+i] = '-'
		}
	}
	for _, special := range []struct {
		bit      uint32
		at       int
		with, no byte
	}{{0o4000, 3, 's', 'S'}, {0o2000, 6, 's', 'S'}, {0o1000, 9, 't', 'T'}} {
		if mode&special.bit == 0 {
			continue
		}
		if b[special.at] == 'x' {
			b[special.at] = special.with
		} else {
			b[special.at] = special.no
		}
	}
	return string(b)
}

// fileColumns are those of files; the first one is called after what it has.
func fileColumns(first, doc string) table.Columns[diskFile] {
	number := func(get func(s *disk.Stat) uint64) func(*diskFile) table.Value {
		return func(f *diskFile) table.Value { return table.UintValue(get(&f.stat)) }
	}
	at := func(get func(s *disk.Stat) time.Time) func(*diskFile) table.Value {
		return func(f *diskFile) table.Value {
			if t := get(&f.stat); !t.IsZero() {
				return table.TimeValue(t)
			}
			return table.Value{}
		}
	}
	return table.Columns[diskFile]{
		{Name: "mode", Type: table.Text, Doc: "Type and permissions, as ls shows them.", Get: func(f *diskFile) table.Value { return table.TextValue(modeText(f.stat.Mode)) }},
		{Name: "uid", Type: table.Uint, Doc: "User ID of its owner.", Get: number(func(s *disk.Stat) uint64 { return uint64(s.UID) })},
		{Name: "gid", Type: table.Uint, Doc: "Group ID.", Get: number(func(s *disk.Stat) uint64 { return uint64(s.GID) })},
		{Name: "size", Type: table.Size, Doc: "Bytes.", Get: func(f *diskFile) table.Value { return table.SizeValue(uint64(f.stat.Size)) }},
		{Name: "modified", Type: table.Time, Doc: "When its content was changed.", Get: at(func(s *disk.Stat) time.Time { return s.Modified })},
		{Name: first, Type: table.Text, Doc: doc, Get: func(f *diskFile) table.Value { return table.TextValue(f.name) }},
		{Name: "target", Type: table.Text, Doc: "Where a symbolic link leads.", Get: func(f *diskFile) table.Value {
			if f.stat.Type() != disk.TypeLink {
				return table.Value{}
			}
			target, err := f.node.Target()
			if err != nil {
				return table.MissingBecause(table.Unreadable, err)
			}
			return table.TextValue(target)
		}},
		{Name: "type", Type: table.Text, Extra: true, Doc: "Type: file, dir, link, char, block, fifo, socket.", Get: func(f *diskFile) table.Value { return textOrMissing(typeNames[f.stat.Type()]) }},
		{Name: "inode", Type: table.Uint, Extra: true, Doc: "Number of its inode.", Get: number(func(s *disk.Stat) uint64 { return s.Inode })},
		{Name: "links", Type: table.Uint, Extra: true, Doc: "How many names it has.", Get: number(func(s *disk.Stat) uint64 { return uint64(s.Links) })},
		{Name: "occupies", Type: table.Size, Extra: true, Doc: "Bytes that it occupies on the disk.", Get: func(f *diskFile) table.Value { return table.SizeValue(uint64(f.stat.Blocks) * 512) }},
		{Name: "major", Type: table.Uint, Extra: true, Doc: "Major number of a device.", Get: ofDevice(func(s *disk.Stat) uint32 { return s.Major })},
		{Name: "minor", Type: table.Uint, Extra: true, Doc: "Minor number of a device.", Get: ofDevice(func(s *disk.Stat) uint32 { return s.Minor })},
		{Name: "changed", Type: table.Time, Extra: true, Doc: "When its inode was changed.", Get: at(func(s *disk.Stat) time.Time { return s.Changed })},
		{Name: "accessed", Type: table.Time, Extra: true, Doc: "When it was read.", Get: at(func(s *disk.Stat) time.Time { return s.Accessed })},
		{Name: "born", Type: table.Time, Extra: true, Doc: "When it was made; missing where the file system does not note that.", Get: at(func(s *disk.Stat) time.Time { return s.Born })},
		{Name: "deleted", Type: table.Time, Extra: true, Doc: "When it was deleted; missing if it was not.", Get: at(func(s *disk.Stat) time.Time { return s.Deleted })},
		{Name: "flags", Type: table.List, Extra: true, Doc: "immutable, append, encrypted, verity, casefold, inline, compressed, unlinked (in no directory, and open).", Get: func(f *diskFile) table.Value {
			return table.ListValue(f.stat.Flags.Names())
		}},
		{Name: "project", Type: table.Uint, Extra: true, Doc: "Project ID, for quotas.", Get: number(func(s *disk.Stat) uint64 { return uint64(s.Project) })},
		{Name: "generation", Type: table.Uint, Extra: true, Doc: "Generation of the inode, which differs each time that its number is used.", Get: number(func(s *disk.Stat) uint64 { return uint64(s.Generation) })},
		{Name: "attributes", Type: table.List, Extra: true, Doc: "Extended attributes: name=value in hexadecimal.", Get: func(f *diskFile) table.Value {
			var all []string
			for a, err := range f.node.Attributes() {
				if err != nil {
					return table.MissingBecause(table.Unreadable, err)
				}
				all = append(all, fmt.Sprintf("%s=%x", a.Name, a.Value))
			}
			return table.ListValue(all)
		}},
	}
}

func ofDevice(get func(*disk.Stat) uint32) func(*diskFile) table.Value {
	return func(f *diskFile) table.Value {
		if t := f.stat.Type(); t != disk.TypeChar && t != disk.TypeBlock {
			return table.Value{}
		}
		return table.UintValue(uint64(get(&f.stat)))
	}
}

// fileList is a command that shows files as rows.
type fileList struct {
	diskFlags
	out     outputFlags
	where   string
	spec    table.Spec
	columns table.Columns[diskFile]
}

func (l *fileList) view(rows iter.Seq[*diskFile]) table.View {
	return listView(l.spec, l.columns, rows)
}

// command makes it; find gives the rows, of a place that was opened.
func (l *fileList) command(c *cobra.Command, follow bool, find func(p *diskPlace) iter.Seq2[*diskFile, error]) *cobra.Command {
	c.GroupID = groupDisk
	c.Args = arguments(1, 1, "an IMAGE:/PATH")
	l.add(c, true)
	l.out.add(c, l.view(nil).Columns())
	c.Flags().StringVar(&l.where, "where", "", "only files for which this `expression` over the columns is true, in CEL: 'size > 1000000 && uid != 0'")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		columns := l.view(nil).Columns()
		if l.out.single && l.out.columns == "" {
			l.out.columns = "all"
		}
		o, err := l.out.parse(c.OutOrStdout(), columns)
		if err != nil {
			return err
		}
		var e *where.Filter
		if l.where != "" {
			if e, err = where.Compile(columns, l.where); err != nil {
				return usagef("--where: %w", err)
			}
		}
		p, err := l.find(c, args[0], follow)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.disk.Close()) }()
		failed := 0
		request := table.Request{Columns: o.options.Columns.With(o.order.Columns()...)}
		if e != nil {
			request.Columns = request.Columns.With(e.Columns()...)
		}
		var report table.Report
		var refused error
		rows := table.Rows(c.Context(), l.view(partial(c, &failed, find(p))), nil, request, &report)
		if err := o.write(c.OutOrStdout(), columns, filtered(rows, e, &refused)); err != nil {
			return err
		}
		return errors.Join(refused, incomplete(c, failed))
	}
	return c
}

func newLsCommand() *cobra.Command {
	l := &fileList{columns: fileColumns("name", "Name in the directory."), spec: table.Spec{Name: "ls", Doc: "Show the files of a directory.", Host: true, Key: []string{"name"}}}
	return l.command(&cobra.Command{
		Use:     "ls IMAGE[:/PATH]",
		Short:   "List a directory of a disk",
		Long:    "List a directory of a disk, or show one file of it.\n\n" + diskHelp,
		Example: "  outsight ls vm1.qcow2:/etc\n  outsight ls vm1.qcow2:/var/tmp --sort -modified\n  outsight ls /dev/vg0/vm1:/root --columns all -o json",
	}, true, func(p *diskPlace) iter.Seq2[*diskFile, error] {
		if p.node.Stat().Type() != disk.TypeDir {
			return func(yield func(*diskFile, error) bool) { yield(newDiskFile(p.path, p.node), nil) }
		}
		return func(yield func(*diskFile, error) bool) {
			for e, err := range p.node.Entries() {
				if err != nil {
					if !yield(nil, err) {
						return
					}
					continue
				}
				n, err := p.volume.FS.Node(e.Inode)
				if err != nil {
					if !yield(nil, fmt.Errorf("%s: %w", path.Join(p.path, e.Name), err)) {
						return
					}
					continue
				}
				if !yield(newDiskFile(e.Name, n), nil) {
					return
				}
			}
		}
	})
}

func newFindCommand() *cobra.Command {
	l := &fileList{columns: fileColumns("path", "Path, from the root of the file system."), spec: table.Spec{Name: "find", Doc: "Show all files below a directory.", Host: true, Key: []string{"path"}}}
	return l.command(&cobra.Command{
		Use:   "find IMAGE[:/PATH]",
		Short: "Find files on a disk",
		Long:  "Show all files of a disk below a directory, or those that --where describes.\n\n" + diskHelp,
		Example: `  outsight find vm1.qcow2 --where 'mode.startsWith("-rws")'
  outsight find vm1.qcow2:/etc --where 'modified > timestamp("2026-11-01T00:00:00Z")' --sort -modified
  outsight find vm1.qcow2 --where 'path.endsWith(".ko") && uid != 0' -o json`,
	}, true, func(p *diskPlace) iter.Seq2[*diskFile, error] {
		return func(yield func(*diskFile, error) bool) {
			for f, err := range disk.Walk(p.volume.FS, p.path, p.node) {
				if err != nil {
					if !yield(nil, fmt.Errorf("%s: %w", f.Path, err)) {
						return
					}
					continue
				}
				if !yield(newDiskFile(f.Path, f.Node), nil) {
					return
				}
			}
		}
	})
}

func newDeletedCommand() *cobra.Command {
	columns := fileColumns("was", "Always missing: the name went with the file.")
	// The first columns are those of what is known of it.
	for i := range columns {
		switch columns[i].Name {
		case "inode", "deleted", "flags":
			columns[i].Extra = false
		}
	}
	columns = append(columns[:5:5], columns[6:]...)
	l := &fileList{columns: columns, spec: table.Spec{Name: "deleted", Doc: "Show what was deleted.", Host: true, Key: []string{"inode"}}}
	return l.command(&cobra.Command{
		Use:   "deleted IMAGE",
		Short: "Show what was deleted on a disk, as far as it is legible",
		Long: `Show the inodes of deleted files that were not used again: who had them, how large they were, when they were deleted. Their names are
gone. Files that were deleted while a program had them open are marked as unlinked, and still have their content.

` + diskHelp,
		Example: "  outsight deleted vm1.qcow2 --sort -deleted\n  outsight deleted vm1.qcow2 --where '\"unlinked\" in flags' -o json",
	}, true, func(p *diskPlace) iter.Seq2[*diskFile, error] {
		return func(yield func(*diskFile, error) bool) {
			for n, err := range p.volume.FS.Nodes() {
				if err != nil {
					if !yield(nil, err) {
						return
					}
					continue
				}
				if s := n.Stat(); s.Deleted.IsZero() && s.Flags&disk.Unlinked == 0 {
					continue
				}
				if !yield(newDiskFile("", n), nil) {
					return
				}
			}
		}
	})
}

func newStatCommand() *cobra.Command {
	l := &fileList{columns: fileColumns("path", "Path that was asked for."), spec: table.Spec{Name: "stat", Doc: "Show all that is known of a file.", Host: true, Key: []string{"path"}}}
	l.out.single = true
	return l.command(&cobra.Command{
		Use:     "stat IMAGE:/PATH",
		Short:   "Show all that a disk knows of a file",
		Long:    "Show all that is known of a file: times, owner, inode, flags, extended attributes. A symbolic link is shown itself.\n\n" + diskHelp,
		Example: "  outsight stat vm1.qcow2:/usr/bin/sudo\n  outsight stat vm1.qcow2:/etc/shadow -o json",
	}, false, func(p *diskPlace) iter.Seq2[*diskFile, error] {
		return func(yield func(*diskFile, error) bool) { yield(newDiskFile(p.path, p.node), nil) }
	})
}
