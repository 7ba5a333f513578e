package views

import (
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "containers",
		Doc: `Show the containers that run in a guest.

A container is known by its control group, whose name gives the runtime and the
identifier: docker, podman, containerd (Kubernetes), cri-o, LXC, systemd-nspawn. Where
that shows nothing, the first process of a PID namespace is looked at: the arguments of
the monitor above it, and "container=" in its environment, which programs can
set freely. One that has none of these is not seen here, but its namespaces are. Names that
only a runtime's files hold (docker's) are not found. A container without processes is
not shown.`,
		Source:  "task_struct, its css_set and nsproxy, and the mounts of its root; the arguments of monitors, and environments",
		Key:     []string{"id", "runtime"},
		Of:      itsContainer,
		Example: "lab:demo",
	}, containersColumns, fromPartly((*linux.System).Containers)))
}

var containersColumns = table.Columns[linux.ContainerInfo]{
	{
		Name: "id", Type: table.Text, Doc: "The runtime's identifier, or the container's name.",
		Get: func(c *linux.ContainerInfo) table.Value { return text(c.ID) },
	},
	{
		Name: "runtime", Type: table.Text, Doc: "docker, containerd, cri-o, podman, lxc, nspawn, or another name from its environment; missing if the control group's name does not say.",
		Get: func(c *linux.ContainerInfo) table.Value { return text(c.Runtime) },
	},
	{
		Name: "name", Type: table.Text, Doc: "What people call it: from podman's and CRI-O's monitor, or, in a pod, from the kubelet's mount.",
		Get: func(c *linux.ContainerInfo) table.Value { return text(c.Name) },
	},
	{
		Name: "pod", Type: table.Text, Extra: true, Doc: "UID of the Kubernetes pod; missing outside one.",
		Get: func(c *linux.ContainerInfo) table.Value { return text(c.Pod) },
	},
	{
		Name: "root_pid", Type: table.Int, Doc: "Its first process: number 1 of its PID namespace, if it has one.",
		Get: func(c *linux.ContainerInfo) table.Value { return integer(c.RootPID) },
	},
	{Name: "comm", Type: table.Text, Doc: "Name of that process.", Get: func(c *linux.ContainerInfo) table.Value { return table.TextValue(c.RootComm) }},
	{Name: "processes", Type: table.Int, Doc: "Number of its processes.", Get: func(c *linux.ContainerInfo) table.Value { return integer(c.Processes) }},
	{Name: "hostname", Type: table.Text, Doc: "Node name in its UTS namespace.", Get: func(c *linux.ContainerInfo) table.Value { return text(c.Hostname) }},
	{
		Name: "started", Type: table.Time, Doc: "When that process started, by the guest's clock.",
		Get: func(c *linux.ContainerInfo) table.Value { return started(c.Started) },
	},
	{
		Name: "root", Type: table.Text, Extra: true, Doc: "Its root folder, seen from the root of its mount namespace.",
		Get: func(c *linux.ContainerInfo) table.Value { return text(c.Root) },
	},
	{
		Name: "root_type", Type: table.Text, Doc: "File system of its root: overlay, ext4 …",
		Get: func(c *linux.ContainerInfo) table.Value { return text(c.RootType) },
	},
	{
		Name: "root_from", Type: table.Text, Extra: true, Doc: "What is mounted as its root: a device, or what the runtime called it.",
		Get: func(c *linux.ContainerInfo) table.Value { return text(c.RootFrom) },
	},
	{
		Name: "lower", Type: table.List, Extra: true, Doc: "Folders of the image, the uppermost first, if its root is an overlay.",
		Get: func(c *linux.ContainerInfo) table.Value {
			return overlay(c, func(v *linux.Overlay) table.Value { return list(v.Lower) })
		},
	},
	{
		Name: "upper", Type: table.Text, Extra: true, Doc: "Folder that holds what the container wrote, if its root is an overlay.",
		Get: func(c *linux.ContainerInfo) table.Value {
			return overlay(c, func(v *linux.Overlay) table.Value { return text(v.Upper) })
		},
	},
	{
		Name: "work", Type: table.Text, Extra: true, Doc: "That overlay's working folder.",
		Get: func(c *linux.ContainerInfo) table.Value {
			return overlay(c, func(v *linux.Overlay) table.Value { return text(v.Work) })
		},
	},
	{
		Name: "pid_ns", Type: table.Uint, Extra: true, Doc: "Inode of its PID namespace.",
		Get: func(c *linux.ContainerInfo) table.Value { return positive(c.PIDNS) },
	},
	{
		Name: "cgroup", Type: table.Text, Extra: true, Doc: "Control group of that process.",
		Get: func(c *linux.ContainerInfo) table.Value { return text(c.Cgroup) },
	},
}

// overlay is a cell of the overlay that a container's root is, if it is one.
func overlay(c *linux.ContainerInfo, cell func(*linux.Overlay) table.Value) table.Value {
	switch {
	case c.Overlay != nil:
		return cell(c.Overlay)
	case c.OverlayErr != nil:
		return unreadable(c.OverlayErr)
	}
	return none
}
