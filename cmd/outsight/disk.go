package main

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/cached"
	"github.com/outsight-vmi/outsight/disk/live"
	"github.com/outsight-vmi/outsight/disk/qcow2"
	"github.com/outsight-vmi/outsight/disk/stack"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/vm"
)

const diskHelp = `IMAGE is the file of a disk (raw, qcow2 with its chain; VMDK, VHDX, VHD and VDI through qemu-nbd),
a block device, or the TARGET of a running QEMU: then its disks are read as they are at one moment,
which QEMU keeps meanwhile, and it goes on. Partitions, software RAID and LVM are found, and ext2,
ext3, ext4 and XFS are read, with what is only in their journals. Nothing is mounted, and nothing
is written. With several file systems the one that has /etc and /usr is meant, or that of --volume.
The image of a running machine may change while it is read as a file.`

// diskFlags are the flags of every command that reads disks.
type diskFlags struct {
	volume          string
	options         stack.Options
	diskOnly, pause bool
	look            *guest.Look // at the guest whose disks are read; nil: none
}

func (f *diskFlags) add(c *cobra.Command, volume bool) {
	if volume {
		c.Flags().BoolVar(&f.diskOnly, "disk-only", false, "of a running machine, show what is on its disks, without what its kernel has in memory alone")
		c.Flags().BoolVar(&f.pause, "pause", false, "stop a running machine while it is read: its disks and its memory are of one moment then")
		c.Flags().StringVar(&f.volume, "volume", "", "the `VOLUME` that is meant: its name, label or UUID, as \"outsight volumes\" lists them")
	}
	c.Flags().StringArrayVar(&f.options.With, "with", nil, "the `IMAGE` of another disk of the machine, with parts of its volume groups or arrays (may be repeated)")
	c.Flags().StringVar(&f.options.Snapshot, "snapshot", "", "the disk as it was at this `SNAPSHOT` inside a qcow2 image")
	c.Flags().StringVar(&f.options.Format, "format", "", "the `FORMAT` of the image (raw, qcow2, vmdk, vhdx, vpc, vdi, parallels) instead of what it begins as: whoever writes to a raw disk can make it begin as any other")
	c.Flags().StringArrayVar(&f.options.Folders, "allow", nil, "a `FOLDER` whose files an image may name as what it is based on, beside its own folder (may be repeated)")
}

// open opens an image or the disks of a machine, and says what is not in order with them.
func (f *diskFlags) open(c *cobra.Command, image string) (*stack.Disk, error) {
	if f.options.Format != "" && !slices.Contains(stack.Formats(), f.options.Format) {
		return nil, usagef("--format: unknown format %q; there are %s", f.options.Format, strings.Join(stack.Formats(), ", "))
	}
	if image == "" {
		return nil, usagef("%s needs the name of a disk's file, or a TARGET", c.Name())
	}
	if isMachine(image) {
		return f.openMachine(c, image)
	}
	d, err := stack.Open(c.Context(), image, f.options)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open the disk %s: no such file; IMAGE is the path of a disk's file, or the TARGET of a running QEMU", image)
	case errors.Is(err, qcow2.ErrOutside):
		return nil, fmt.Errorf("open the disk %s: %w; if that is meant, add --allow FOLDER", image, err)
	case err != nil:
		return nil, fmt.Errorf("open the disk %s: %w", image, err)
	}
	complain(c, d)
	return d, nil
}

func complain(c *cobra.Command, d *stack.Disk) {
	for _, note := range d.Notes {
		fmt.Fprintln(c.ErrOrStderr(), "outsight: "+sentence(note))
	}
}

// isMachine says that a name is not that of a disk's file: it is a TARGET, or a socket.
func isMachine(name string) bool {
	info, err := os.Stat(name)
	if err != nil {
		return strings.HasPrefix(name, qemuTarget) || !strings.Contains(name, "/")
	}
	return info.Mode().Type() == fs.ModeSocket
}

const qemuTarget = "qemu:"

// openMachine keeps a moment of a running machine's disks, and looks at what its kernel has of them in memory.
func (f *diskFlags) openMachine(c *cobra.Command, target string) (_ *stack.Disk, err error) {
	if f.options.Snapshot != "" || f.options.Format != "" || len(f.options.With) > 0 {
		return nil, usagef("%s is no file of a disk: --snapshot, --format and --with are for images", target)
	}
	m, err := f.machine(c, target)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	machine := m.machine
	if !machine.Live() {
		return nil, fmt.Errorf("%s is a dump of memory: it has no disks", target)
	}
	drives, err := live.Drives(c.Context(), machine.Control.Monitor)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", target, err)
	}
	drives = slices.DeleteFunc(drives, func(d live.Drive) bool { return d.ReadOnly })
	if len(drives) == 0 {
		return nil, fmt.Errorf("%s has no disks that it can write to", target)
	}
	s, err := live.Open(c.Context(), target, machine, drives)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", target, err)
	}
	d := stack.Over(s.Devices...)
	d.Owns(s)
	if m.guest != nil {
		// After the disks: what is in memory is newer than they are, never older.
		l, err := m.guest.Look(c.Context())
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		d.Owns(l)
		f.look = l
	}
	d.Owns(m)
	complain(c, d)
	return d, nil
}

// A diskMachine is an open machine, with its guest if that is known.
type diskMachine struct {
	machine *vm.Machine
	guest   *guest.Guest
}

func (m *diskMachine) Close() error {
	if m.guest != nil {
		return m.guest.Close()
	}
	return m.machine.Close()
}

// machine opens a TARGET. Its disks can be read also if its kernel is not found.
func (f *diskFlags) machine(c *cobra.Command, target string) (*diskMachine, error) {
	if !f.diskOnly {
		flags := guestFlags{pause: f.pause}
		g, err := flags.session(c.Context(), target)
		if err == nil {
			return &diskMachine{g.Machine(), g}, nil
		}
		if f.pause {
			return nil, err
		}
	}
	m, err := openMachine(c.Context(), target)
	if err != nil {
		return nil, err
	}
	if !f.diskOnly {
		warn("its kernel is not found: what it has not written to its disks is not shown")
	}
	return &diskMachine{machine: m}, nil
}

// newer lays what the guest has in memory over a volume.
func (f *diskFlags) newer(c *cobra.Command, v *stack.Volume) error {
	if f.look == nil {
		return nil
	}
	over, err := cached.Over(c.Context(), f.look.Linux, f.look.Machine.Memory, v.Device, v.FS)
	switch {
	case errors.Is(err, cached.ErrNotMounted):
		return nil
	case err != nil:
		return fmt.Errorf("volume %s: what the guest has of it in memory: %w; --disk-only leaves that out", v.Name, err)
	}
	v.FS = over
	return nil
}

// A diskPlace is a file on a disk.
type diskPlace struct {
	disk   *stack.Disk
	volume *stack.Volume
	path   string
	node   disk.Node
}

// find opens IMAGE:/PATH.
func (f *diskFlags) find(c *cobra.Command, arg string, follow bool) (*diskPlace, error) {
	image, path := splitPlace(arg)
	d, err := f.open(c, image)
	if err != nil {
		return nil, err
	}
	p := &diskPlace{disk: d, path: path}
	if p.volume, err = d.Volume(f.volume); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", image, err), d.Close())
	}
	if err := f.newer(c, p.volume); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	for _, note := range p.volume.FS.Info().Notes {
		fmt.Fprintf(c.ErrOrStderr(), "outsight: volume %s: %s\n", p.volume.Name, sentence(note))
	}
	if p.node, err = disk.Lookup(p.volume.FS, path, follow); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return p, nil
}

// splitPlace divides IMAGE:/PATH. What is a file as a whole has no path.
func splitPlace(arg string) (image, path string) {
	if _, err := os.Stat(arg); err == nil {
		return arg, "/"
	}
	if i := strings.LastIndex(arg, ":/"); i > 0 && arg[:i+1] != qemuTarget { // qemu:/run/vm1.qmp has no path
		return arg[:i], arg[i+1:]
	}
	return arg, "/"
}

// partial yields what could be read, says what could not, and counts that.
func partial[T any](c *cobra.Command, failed *int, found iter.Seq2[T, error]) iter.Seq[T] {
	return func(yield func(T) bool) {
		for x, err := range found {
			if c.Context().Err() != nil {
				return
			}
			if err != nil {
				if *failed++; *failed <= maxComplaints {
					fmt.Fprintln(c.ErrOrStderr(), "outsight: "+sentence(err.Error()))
				}
				continue
			}
			if !yield(x) {
				return
			}
		}
	}
}

// maxComplaints is how many errors are shown one by one: a damaged disk has millions.
const maxComplaints = 20

// incomplete is how a command ends that could not read so many things.
func incomplete(c *cobra.Command, failed int) error {
	if err := c.Context().Err(); err != nil {
		return err
	}
	if failed == 0 {
		return nil
	}
	if failed > maxComplaints {
		fmt.Fprintf(c.ErrOrStderr(), "outsight: %s could not be read in all\n", counted(failed, "thing"))
	}
	return errIncomplete{}
}

// volumeColumns are those of "outsight volumes".
var volumeColumns = table.Columns[stack.Volume]{
	{Name: "name", Type: table.Text, Doc: "Name, for --volume.", Get: func(v *stack.Volume) table.Value { return table.TextValue(v.Name) }},
	{Name: "offset", Type: table.Uint, Doc: "Where it begins on the disk, in bytes; missing if it is not in one piece.", Get: func(v *stack.Volume) table.Value {
		if v.Offset < 0 {
			return table.Value{}
		}
		return table.UintValue(uint64(v.Offset))
	}},
	{Name: "size", Type: table.Size, Doc: "Bytes.", Get: func(v *stack.Volume) table.Value {
		if v.Device == nil {
			return table.Value{}
		}
		return table.SizeValue(uint64(v.Device.Size()))
	}},
	{Name: "type", Type: table.Text, Doc: "What the partition table says it is for.", Get: func(v *stack.Volume) table.Value {
		if v.Partition == nil {
			return table.Value{}
		}
		if v.Partition.TypeName != "" {
			return table.TextValue(v.Partition.TypeName)
		}
		return textOrMissing(v.Partition.Type)
	}},
	{Name: "content", Type: table.Text, Doc: "What is on it; missing if that is unknown.", Get: func(v *stack.Volume) table.Value { return textOrMissing(v.Content) }},
	{Name: "label", Type: table.Text, Doc: "Label of the file system.", Get: ofFS(func(i disk.Info) table.Value { return textOrMissing(i.Label) })},
	{Name: "uuid", Type: table.Text, Doc: "UUID of the file system.", Get: ofFS(func(i disk.Info) table.Value { return textOrMissing(i.UUID) })},
	{Name: "used", Type: table.Size, Doc: "Bytes that are in use, as the file system has it.", Get: ofFS(func(i disk.Info) table.Value { return table.SizeValue(uint64(i.Used)) })},
	{Name: "block_size", Type: table.Size, Extra: true, Doc: "Bytes of a block.", Get: ofFS(func(i disk.Info) table.Value { return table.SizeValue(uint64(i.BlockSize)) })},
	{Name: "features", Type: table.List, Extra: true, Doc: "Features of the file system, as its own tools name them.", Get: ofFS(func(i disk.Info) table.Value { return table.ListValue(i.Features) })},
	{Name: "elsewhere", Type: table.List, Extra: true, Doc: "What is shown as it is not in its place on the disk: changes in the journal.", Get: ofFS(func(i disk.Info) table.Value { return table.ListValue(i.Elsewhere) })},
	{Name: "notes", Type: table.List, Extra: true, Doc: "What is not in order, and what cannot be shown.", Get: ofFS(func(i disk.Info) table.Value { return table.ListValue(i.Notes) })},
	{Name: "partition_name", Type: table.Text, Extra: true, Doc: "Name of the partition, in a GPT.", Get: ofPartition(func(v *stack.Volume) string { return v.Partition.Name })},
	{Name: "partition_uuid", Type: table.Text, Extra: true, Doc: "UUID of the partition.", Get: ofPartition(func(v *stack.Volume) string { return v.Partition.UUID })},
	{Name: "unreadable", Type: table.Text, Extra: true, Doc: "Why its files cannot be read.", Get: func(v *stack.Volume) table.Value {
		if v.Err == nil {
			return table.Value{}
		}
		return table.TextValue(v.Err.Error())
	}},
}

func ofFS(get func(disk.Info) table.Value) func(*stack.Volume) table.Value {
	return func(v *stack.Volume) table.Value {
		if v.FS == nil {
			return table.Value{}
		}
		return get(v.FS.Info())
	}
}

func ofPartition(get func(*stack.Volume) string) func(*stack.Volume) table.Value {
	return func(v *stack.Volume) table.Value {
		if v.Partition == nil {
			return table.Value{}
		}
		return textOrMissing(get(v))
	}
}

func newVolumesCommand() *cobra.Command {
	var out outputFlags
	var f diskFlags
	volumes := func(rows iter.Seq[*stack.Volume]) table.View {
		return listView(table.Spec{Name: "volumes", Doc: "Show what is on a disk.", Host: true, Key: []string{"name"}}, volumeColumns, rows)
	}
	c := &cobra.Command{
		Use:     "volumes IMAGE",
		Short:   "Show what is on a disk: partitions and file systems",
		Long:    "Show what is on a disk: its partitions, and the file systems on them.\n\n" + diskHelp,
		Example: "  outsight volumes vm1.qcow2\n  outsight volumes vm1.qcow2 --columns +features,unreadable\n  outsight volumes vm1.qcow2 --snapshot before-update -o json",
		GroupID: groupDisk,
		Args:    arguments(1, 1, "an IMAGE"),
	}
	out.add(c, volumes(nil).Columns())
	f.add(c, false)
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		o, err := out.parse(c.OutOrStdout(), volumes(nil).Columns())
		if err != nil {
			return err
		}
		f.diskOnly = true // no kernel is looked for: nothing of what is shown is in files
		d, err := f.open(c, args[0])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.Close()) }()
		return showList(c, o, volumes(func(yield func(*stack.Volume) bool) {
			for _, v := range d.Volumes {
				if !yield(v) {
					return
				}
			}
		}))
	}
	return c
}
