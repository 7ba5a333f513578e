package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "containers",
		Doc: `Show the containers that run in a guest.

A container is known by its control group, whose name tells the runtime and the
identifier: docker, podman, containerd (Kubernetes), cri-o, LXC, systemd-nspawn. Where
that tells nothing, the first process of a PID namespace is looked at: the arguments of
the monitor above it, and "container=" in its environment, which are the words of
programs. One that has none of these is not seen here, but its namespaces are. Names that
only a runtime's files hold (docker's) are not found. A container without processes is
not shown.`,
		Columns: []table.Column{
			{Name: "id", Type: table.Text, Doc: "The runtime's identifier, or the container's name."},
			{Name: "runtime", Type: table.Text, Doc: "docker, containerd, cri-o, podman, lxc, nspawn, or another in the words of its environment; missing if the control group's name does not tell."},
			{Name: "name", Type: table.Text, Doc: "What people call it: from podman's and CRI-O's monitor, or, in a pod, from the kubelet's mount."},
			{Name: "pod", Type: table.Text, Extra: true, Doc: "UID of the Kubernetes pod; missing outside one."},
			{Name: "root_pid", Type: table.Int, Doc: "Its first process: number 1 of its PID namespace, if it has one."},
			{Name: "comm", Type: table.Text, Doc: "Name of that process."},
			{Name: "processes", Type: table.Int, Doc: "Number of its processes."},
			{Name: "hostname", Type: table.Text, Doc: "Node name in its UTS namespace."},
			{Name: "started", Type: table.Time, Doc: "When that process started, by the guest's clock."},
			{Name: "root", Type: table.Text, Extra: true, Doc: "Its root folder, seen from the root of its mount namespace."},
			{Name: "root_type", Type: table.Text, Doc: "File system of its root: overlay, ext4 …"},
			{Name: "root_from", Type: table.Text, Extra: true, Doc: "What is mounted as its root: a device, or what the runtime called it."},
			{Name: "lower", Type: table.List, Extra: true, Doc: "Folders of the image, the uppermost first, if its root is an overlay."},
			{Name: "upper", Type: table.Text, Extra: true, Doc: "Folder that holds what the container wrote, if its root is an overlay."},
			{Name: "work", Type: table.Text, Extra: true, Doc: "That overlay's working folder."},
			{Name: "pid_ns", Type: table.Uint, Extra: true, Doc: "Inode of its PID namespace."},
			{Name: "cgroup", Type: table.Text, Extra: true, Doc: "Control group of that process."},
		},
		Rows:    containerRows,
		Of:      itsContainer,
		Example: "lab:demo",
	}))
}

func containerRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for c, err := range g.Linux.Containers(ctx) {
			var row table.Row
			if c != nil {
				row = containerRow(c)
			}
			if !yield(row, ended(err)) {
				return
			}
		}
	}
}

func containerRow(c *linux.ContainerInfo) table.Row {
	started, pidNS := table.Missing(table.Unreadable), table.Missing(table.None)
	if !c.Started.IsZero() {
		started = table.TimeValue(c.Started)
	}
	if c.PIDNS != 0 {
		pidNS = table.UintValue(c.PIDNS)
	}
	lower, upper, work := table.Missing(table.None), table.Missing(table.None), table.Missing(table.None)
	if v := c.Overlay; v != nil {
		lower, upper, work = texts(v.Lower), text(v.Upper), text(v.Work)
	} else if c.OverlayErr != nil {
		lower, upper, work = unreadable(c.OverlayErr), unreadable(c.OverlayErr), unreadable(c.OverlayErr)
	}
	return table.Row{
		text(c.ID), text(c.Runtime), text(c.Name), text(c.Pod), table.IntValue(int64(c.RootPID)), table.TextValue(c.RootComm),
		table.IntValue(int64(c.Processes)), text(c.Hostname), started, text(c.Root), text(c.RootType), text(c.RootFrom),
		lower, upper, work, pidNS, text(c.Cgroup),
	}
}
