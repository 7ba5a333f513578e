package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/vm"
)

const recoverLong = `Write out the bytes of a file that the guest has in memory.

The bytes come from the guest's page cache, not from its disk: a file that nobody used
for long may not be there, or only a part of it. What is missing is written as zeros (a
hole, where the output is a file), told on standard error as ranges of bytes, and ends
in exit status 3. Files of tmpfs, memfd and other shared memory are whole but for pages in
swap. PATH is as the first process sees it, or with --pid that process; a file that was
unlinked is found by the path it had. --map prints what there is, and no bytes.`

type recoverFlags struct {
	guest  guestFlags
	output string
	pid    int32
	ranges bool
}

// errIncomplete ends a recovery that lacked bytes; they have been told by then.
type errIncomplete struct{}

func (errIncomplete) Error() string   { return "the file is not whole in memory" }
func (errIncomplete) ExitStatus() int { return exitTarget }

func newRecoverCommand() *cobra.Command {
	var f recoverFlags
	c := &cobra.Command{
		Use:   "recover [TARGET] PATH",
		Short: "Write out a file that the guest has in memory",
		Long:  recoverLong,
		Example: `  outsight recover lab:demo /etc/passwd
  outsight recover memory.raw /tmp/dropper -o dropper.bin`,
		Args:    cobra.RangeArgs(1, 2),
		GroupID: string(table.Files),
	}
	f.guest.add(c)
	c.Flags().StringVarP(&f.output, "output", "o", "-", "write to this `file`; - is standard output")
	c.Flags().Int32Var(&f.pid, "pid", 1, "find PATH as this process sees it")
	c.Flags().BoolVar(&f.ranges, "map", false, "print the ranges that are in memory, and those that are not")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		path := args[len(args)-1]
		if !strings.HasPrefix(path, "/") {
			return usagef("%q is no absolute path", path)
		}
		target := ""
		if len(args) == 2 {
			target = args[0]
		}
		g, done, err := f.guest.open(c.Context(), target)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		i, err := findFile(c.Context(), g.Linux, path, f.pid)
		if err != nil {
			return err
		}
		return f.write(c, g.Linux, i)
	}
	return c
}

// findFile is the file that a process sees at path; one that was unlinked counts
// only where no other is there.
func findFile(ctx context.Context, s *linux.System, path string, pid int32) (*linux.INode, error) {
	notThere := func(what, do string) error {
		return &vm.Error{Kind: vm.ErrNotFound, What: "recover " + path, Why: what, Do: do}
	}
	var task *linux.Task
	for t, err := range s.Processes(ctx) {
		if err != nil {
			continue // it may be another; if it is this, that is told below
		}
		if p, _, err := t.IDs(); err == nil && p == pid {
			task = &t
			break
		}
	}
	if task == nil {
		return nil, notThere(fmt.Sprintf("there is no process %d", pid), "choose another with --pid")
	}
	places, err := s.NewLister().Places(ctx, *task)
	if err != nil {
		return nil, fmt.Errorf("mounts of process %d: %w", pid, err)
	}
	var unlinked *linux.INode
	unread := 0
	for sb, err := range s.SuperBlocks(ctx) {
		if err != nil {
			unread++
			continue
		}
		for i, err := range s.INodes(ctx, sb) {
			if err != nil {
				unread++
				continue
			}
			name, deleted, mounted, err := places.Path(i)
			if err != nil {
				unread++
				continue
			}
			const typeMask, regular = 0o170000, 0o100000
			if name != path || i.Mode&typeMask != regular || !mounted && !deleted {
				continue
			}
			if !deleted {
				return i, nil
			}
			unlinked = i
		}
	}
	if unlinked != nil {
		return unlinked, nil
	}
	why := "the guest has no such file in memory"
	if unread > 0 {
		why += fmt.Sprintf("; %d of them could not be read", unread)
	}
	return nil, notThere(why, `see "outsight pagecache" for those that it has`)
}

// gap is a range that is not in memory, and why.
type gap struct {
	start, end uint64
	why        string
}

func (f *recoverFlags) write(c *cobra.Command, s *linux.System, i *linux.INode) (err error) {
	var out io.Writer
	var file *os.File
	switch {
	case f.ranges:
	case f.output == "-":
		out = c.OutOrStdout()
	default:
		if file, err = os.OpenFile(f.output, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); err != nil {
			return usagef("%w", err)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		out = file
	}
	var ram uint64
	for _, r := range s.Memory.Ranges() {
		ram += r.Size()
	}
	switch { // the size is the guest's word
	case i.Size > 1<<62:
		return fmt.Errorf("inode at %#x: %w: a file of %d bytes", uint64(i.Addr), linux.ErrBroken, i.Size)
	case file == nil && out != nil && i.Size > 4*ram:
		return usagef("the file has %d bytes, most of which cannot be in memory; write it to a sparse file with -o", i.Size)
	}
	var gaps []gap
	at := uint64(0)
	// zeros writes a hole up to end; why is empty where the file itself has one.
	zeros := func(end uint64, why string) error {
		if end <= at {
			return nil
		}
		if why != "" {
			gaps = append(gaps, gap{at, end, why})
		}
		n := end - at
		at = end
		if out == nil || file != nil {
			return nil
		}
		_, err := io.CopyN(out, zeroReader{}, int64(n))
		return err
	}
	absent := "not in memory"
	if i.Super.Shmem || slices.Contains([]string{"ramfs", "devtmpfs", "rootfs"}, i.Super.Type) {
		absent = "" // nothing was ever written there
	}
	buf := make([]byte, 1<<16)
	for r, err := range s.CachedPages(c.Context(), i) {
		if err != nil {
			fmt.Fprintln(c.ErrOrStderr(), "outsight: "+sentence(err.Error()))
			absent = "unreadable"
			continue
		}
		end := min(r.Offset+r.Size, i.Size)
		if r.Offset < at || end <= at {
			continue // behind the end, or twice
		}
		if err := zeros(r.Offset, absent); err != nil {
			return err
		}
		switch {
		case r.Swapped:
			err = zeros(end, "in swap")
		case !r.Valid:
			err = zeros(end, "being read")
		case out == nil:
			fmt.Fprintf(c.OutOrStdout(), "%d-%d in memory at %#x\n", at, end, uint64(r.PA))
			at = end
		}
		for err == nil && at < end {
			b := buf[:min(uint64(len(buf)), end-at)]
			if _, e := s.Memory.ReadAt(b, r.PA+phys.Addr(at-r.Offset)); e != nil {
				err = zeros(at+uint64(len(b)), "unreadable")
				continue
			}
			if file != nil {
				_, err = file.WriteAt(b, int64(at))
			} else {
				_, err = out.Write(b)
			}
			at += uint64(len(b))
		}
		if err != nil {
			return err
		}
	}
	if err := c.Context().Err(); err != nil {
		return err
	}
	if err := zeros(i.Size, absent); err != nil {
		return err
	}
	if file != nil {
		if err := file.Truncate(int64(i.Size)); err != nil {
			return err
		}
	}
	return f.tell(c, gaps, i.Size)
}

func (f *recoverFlags) tell(c *cobra.Command, gaps []gap, size uint64) error {
	missing := uint64(0)
	for _, g := range gaps {
		missing += g.end - g.start
		if f.ranges {
			fmt.Fprintf(c.OutOrStdout(), "%d-%d %s\n", g.start, g.end, g.why)
		} else {
			fmt.Fprintf(c.ErrOrStderr(), "outsight: missing: %d-%d %s\n", g.start, g.end, g.why)
		}
	}
	if missing == 0 {
		return nil
	}
	fmt.Fprintf(c.ErrOrStderr(), "outsight: %d of %d bytes are missing\n", missing, size)
	return errIncomplete{}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
