package views

import (
	"slices"

	"github.com/outsight-vmi/outsight/linux/device"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "ttys", Group: table.Internals,
		Doc: `Show the terminals of a guest, and through whose hands goes what is typed there.

There is a line for every terminal in use: virtual consoles, serial lines, and both sides
of pseudo-terminals. What is typed goes through the receive function of the terminal's line
discipline (receive2 where there is one, else receive), and what is printed through the
write function of its driver: a hook on either sees passwords. Pseudo-terminals that no
process has open, and that control none, are not found. "open_by" looks at the descriptors
of processes, not at those of threads that do not share them.`,
		Source:  "tty_drivers: tty_struct, tty_ldisc; file descriptors for open_by",
		Key:     []string{"device"},
		Of:      itsTerminals,
		Example: "lab:demo",
	}, ttysColumns, each(of(device.Terminals))))
}

func ttysColumns() table.Columns[owned[device.Terminal]] {
	return slices.Concat(
		plain(table.Columns[device.Terminal]{
			{
				Name: "name", Type: table.Text, Doc: "Name below /dev; ptmN is the master side of pts/N.",
				Get: func(t *device.Terminal) table.Value { return text(t.Name) },
			},
			{
				Name: "driver", Type: table.Text, Doc: "Its driver, as in /proc/tty/drivers; missing where the driver has no name.",
				Get: func(t *device.Terminal) table.Value { return text(t.Driver) },
			},
			{
				Name: "driver_module", Type: table.Text, Extra: true, Doc: "Module that says the driver is its own; missing where it is built in.",
				Get: func(t *device.Terminal) table.Value { return text(t.DriverModule) },
			},
			{
				Name: "index", Type: table.Int, Extra: true, Doc: "Which of its driver's terminals it is.",
				Get: func(t *device.Terminal) table.Value { return integer(t.Index) },
			},
			{
				Name: "device", Type: table.Text, Doc: "Device number, major:minor.",
				Get: func(t *device.Terminal) table.Value { return table.TextValue(t.Device.String()) },
			},
			{
				Name: "session", Type: table.Int, Doc: "Process that leads the session that it controls; missing for none.",
				Get: func(t *device.Terminal) table.Value { return when(t.Session != 0, integer(t.Session)) },
			},
			{
				Name: "pgrp", Type: table.Int, Doc: "Process group in the foreground; missing for none.",
				Get: func(t *device.Terminal) table.Value { return when(t.Group != 0, integer(t.Group)) },
			},
			{
				Name: "opens", Type: table.Int, Extra: true, Doc: "How often it is open, as the kernel counts.",
				Get: func(t *device.Terminal) table.Value { return integer(t.Count) },
			},
			{
				Name: "open_by", Type: table.Numbers, Doc: "Processes that have it open; missing for none.",
				Get: func(t *device.Terminal) table.Value { return when(len(t.OpenBy) > 0, table.NumbersValue(t.OpenBy)) },
			},
			{
				Name: "rows", Type: table.Int, Extra: true, Doc: "Lines of its window; 0 if unset.",
				Get: func(t *device.Terminal) table.Value { return integer(t.Rows) },
			},
			{
				Name: "columns", Type: table.Int, Extra: true, Doc: "Characters of a line of its window; 0 if unset.",
				Get: func(t *device.Terminal) table.Value { return integer(t.Columns) },
			},
			{
				Name: "discipline", Type: table.Text, Doc: "Line discipline; missing while it is being changed.",
				Get: func(t *device.Terminal) table.Value { return text(t.Discipline) },
			},
			{
				Name: "discipline_ops", Type: table.Addr, Extra: true, Doc: "Address of its struct tty_ldisc_ops.",
				Get: func(t *device.Terminal) table.Value { return address(t.DisciplineOps) },
			},
		}),
		table.Columns[owned[device.Terminal]]{
			{
				Name: "discipline_owner", Type: table.Text, Extra: true, Doc: holderDoc,
				Get: func(o *owned[device.Terminal]) table.Value { return o.holder(o.it.DisciplineOps) },
			},
		},
		plain(table.Columns[device.Terminal]{
			{
				Name: "peer", Type: table.Addr, Extra: true, Doc: "Address of the other side of a pseudo-terminal.",
				Get: func(t *device.Terminal) table.Value { return address(t.Peer) },
			},
			{
				Name: "ops", Type: table.Addr, Extra: true, Doc: "Address of the driver's struct tty_operations.",
				Get: func(t *device.Terminal) table.Value { return address(t.Ops) },
			},
		}),
		table.Columns[owned[device.Terminal]]{
			{
				Name: "ops_owner", Type: table.Text, Extra: true, Doc: "Owner of the memory that it is in.",
				Get: func(o *owned[device.Terminal]) table.Value { return o.holder(o.it.Ops) },
			},
		},
		plain(table.Columns[device.Terminal]{
			{
				Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct tty_struct.",
				Get: func(t *device.Terminal) table.Value { return address(t.Addr) },
			},
		}),
		code("receive", "the discipline's receive_buf", func(t *device.Terminal) virt.Addr { return t.Receive }),
		code("receive2", "the discipline's receive_buf2, which is called instead", func(t *device.Terminal) virt.Addr { return t.Receive2 }),
		code("write", "the driver's function that writes to the terminal", func(t *device.Terminal) virt.Addr { return t.Write }),
	)
}
