package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/table"
)

// copyBuffer is how much of a file is read at once.
const copyBuffer = 1 << 20

// copyContent writes a file's content, until ctx ends: a file that is all hole may be larger than any disk.
func copyContent(ctx context.Context, w io.Writer, n disk.Node, buf []byte) (int64, error) {
	c, err := n.Content()
	if err != nil {
		return 0, err
	}
	return copyPart(ctx, w, c, 0, c.Size(), buf)
}

func copyPart(ctx context.Context, w io.Writer, c disk.Content, at, size int64, buf []byte) (int64, error) {
	// Neither side may go its own way around the buffer: both are read in large pieces.
	return io.CopyBuffer(struct{ io.Writer }{w}, &untilDone{ctx, io.NewSectionReader(c, at, size)}, buf)
}

// untilDone reads until its context ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// copyHoles writes a file's content to a new file, which has holes where the content has them.
func copyHoles(ctx context.Context, file *os.File, n disk.Node, buf []byte) error {
	c, err := n.Content()
	if err != nil {
		return err
	}
	for e, err := range c.Extents() {
		if err == nil && !e.Unwritten {
			_, err = copyPart(ctx, io.NewOffsetWriter(file, e.Logical), c, e.Logical, e.Length, buf)
		}
		if err != nil {
			return err
		}
	}
	return file.Truncate(c.Size())
}

func newCatCommand() *cobra.Command {
	var f diskFlags
	c := &cobra.Command{
		Use:     "cat IMAGE:/PATH...",
		Short:   "Write files of a disk to standard output",
		Long:    "Write files of a disk to standard output, byte by byte as they are. Symbolic links are followed, within their file system.\n\n" + diskHelp,
		Example: "  outsight cat vm1.qcow2:/etc/passwd\n  outsight cat vm1.qcow2:/var/log/wtmp | last -f /dev/stdin",
		GroupID: groupDisk,
		Args:    arguments(1, 1<<20, "an IMAGE:/PATH"),
	}
	f.add(c, true)
	c.RunE = func(c *cobra.Command, args []string) error {
		buf := make([]byte, copyBuffer)
		for _, arg := range args {
			if err := f.cat(c, arg, buf); err != nil {
				return err
			}
		}
		return nil
	}
	return c
}

func (f *diskFlags) cat(c *cobra.Command, arg string, buf []byte) (err error) {
	p, err := f.find(c, arg, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.disk.Close()) }()
	if p.node.Stat().Type() == disk.TypeDir {
		return fmt.Errorf("%s: is a directory", p.path)
	}
	if _, err := copyContent(c.Context(), c.OutOrStdout(), p.node, buf); err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	return nil
}

// A fileSum is a row of "outsight hash".
type fileSum struct {
	sum  string
	path string
	size int64
}

var sumColumns = table.Columns[fileSum]{
	{Name: "sha256", Type: table.Text, Doc: "SHA-256 of its content.", Get: func(s *fileSum) table.Value { return table.TextValue(s.sum) }},
	{Name: "path", Type: table.Text, Doc: "Path, from the root of the file system.", Get: func(s *fileSum) table.Value { return table.TextValue(s.path) }},
	{Name: "size", Type: table.Size, Extra: true, Doc: "Bytes.", Get: func(s *fileSum) table.Value { return table.SizeValue(uint64(s.size)) }},
}

func newHashCommand() *cobra.Command {
	var f diskFlags
	var out outputFlags
	view := func(rows iter.Seq[*fileSum]) table.View {
		return listView(table.Spec{Name: "hash", Doc: "Show the checksums of files.", Host: true, Key: []string{"path"}}, sumColumns, rows)
	}
	c := &cobra.Command{
		Use:     "hash IMAGE[:/PATH]",
		Short:   "Sum up files of a disk with SHA-256",
		Long:    "Show the SHA-256 of a file, or of all regular files below a directory.\n\n" + diskHelp,
		Example: "  outsight hash vm1.qcow2:/usr/bin/ssh\n  outsight hash vm1.qcow2:/usr -o csv > usr.csv",
		GroupID: groupDisk,
		Args:    arguments(1, 1, "an IMAGE:/PATH"),
	}
	f.add(c, true)
	out.add(c, view(nil).Columns())
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		o, err := out.parse(c.OutOrStdout(), view(nil).Columns())
		if err != nil {
			return err
		}
		p, err := f.find(c, args[0], true)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.disk.Close()) }()
		failed := 0
		if err := showList(c, o, view(partial(c, &failed, p.sums(c.Context())))); err != nil {
			return err
		}
		return incomplete(c, failed)
	}
	return c
}

// sums are the checksums of all regular files below a place.
func (p *diskPlace) sums(ctx context.Context) iter.Seq2[*fileSum, error] {
	return func(yield func(*fileSum, error) bool) {
		buf, h := make([]byte, copyBuffer), sha256.New()
		for f, err := range disk.Walk(p.volume.FS, p.path, p.node) {
			var row *fileSum
			if err == nil {
				if f.Node.Stat().Type() != disk.TypeRegular {
					continue
				}
				h.Reset()
				var n int64
				if n, err = copyContent(ctx, h, f.Node, buf); err == nil {
					row = &fileSum{sum: fmt.Sprintf("%x", h.Sum(nil)), path: f.Path, size: n}
				}
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", f.Path, err)
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

const cpLong = `Copy a file of a disk, or a directory with all that is in it, to the host.

What is copied is content alone: files belong to who copies them and are not executable. Symbolic links,
devices, sockets and FIFOs are left out and counted, because they could act on the host.
Holes stay holes. A file that is there is not replaced without --force.

` + diskHelp

func newCpCommand() *cobra.Command {
	var f diskFlags
	var force bool
	c := &cobra.Command{
		Use:     "cp IMAGE:/PATH TO",
		Short:   "Copy files from a disk to the host",
		Long:    cpLong,
		Example: "  outsight cp vm1.qcow2:/var/log/auth.log .\n  outsight cp vm1.qcow2:/var/spool/cron evidence",
		GroupID: groupDisk,
		Args:    arguments(2, 2, "an IMAGE:/PATH and where to copy it TO"),
	}
	f.add(c, true)
	c.Flags().BoolVar(&force, "force", false, "replace files that are there")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		p, err := f.find(c, args[0], true)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.disk.Close()) }()
		to := args[1]
		if s, err := os.Stat(to); err == nil && s.IsDir() {
			to = path.Join(to, path.Base(p.path)) // as cp does
			if s, err := os.Lstat(to); err == nil && s.Mode().Type() == fs.ModeSymlink && p.node.Stat().Type() == disk.TypeDir {
				return usagef("%s is a link: name where it leads if that is meant", to)
			}
		}
		return p.copyTo(c, to, force)
	}
	return c
}

// copyTo copies what is at a place, and says what it left out.
func (p *diskPlace) copyTo(c *cobra.Command, to string, force bool) error {
	single := p.node.Stat().Type() != disk.TypeDir
	into, name := to, "."
	if single {
		into, name = path.Dir(to), path.Base(to)
	} else if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	// Whatever the names on the disk are, nothing is written outside.
	root, err := os.OpenRoot(into)
	if err != nil {
		return err
	}
	defer root.Close()
	buf := make([]byte, copyBuffer)
	failed, left, files := 0, 0, 0
	complain := func(at string, err error) {
		if failed++; failed <= maxComplaints {
			fmt.Fprintf(c.ErrOrStderr(), "outsight: %s: %s\n", sentence(at), sentence(err.Error()))
		}
	}
	for f, err := range disk.Walk(p.volume.FS, p.path, p.node) {
		if err := c.Context().Err(); err != nil {
			return err
		}
		if err != nil {
			complain(f.Path, err)
			continue
		}
		below := strings.TrimPrefix(strings.TrimPrefix(f.Path, path.Clean("/"+p.path)), "/")
		at := path.Join(name, below)
		switch f.Node.Stat().Type() {
		case disk.TypeDir:
			if err := root.Mkdir(at, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				complain(f.Path, err)
			}
		case disk.TypeRegular:
			if err := copyFile(c.Context(), root, at, f.Node, force, buf); err != nil {
				complain(f.Path, err)
			} else {
				files++
			}
		default:
			left++
		}
	}
	fmt.Fprintf(c.ErrOrStderr(), "outsight: copied %s\n", counted(files, "file"))
	if left > 0 {
		fmt.Fprintf(c.ErrOrStderr(), "outsight: left out %s: links, devices, sockets and FIFOs are not copied\n", counted(left, "file"))
	}
	return incomplete(c, failed)
}

func copyFile(ctx context.Context, root *os.Root, name string, n disk.Node, force bool, buf []byte) (err error) {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		// What is there is taken away, not written to: it may be a link.
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	file, err := root.OpenFile(name, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w; add --force to replace it", err)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(err, root.Remove(name)) // a part of a file would pass for the file
		}
	}()
	return copyHoles(ctx, file, n, buf)
}
