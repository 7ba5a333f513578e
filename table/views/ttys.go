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
		Name: "ttys", Group: table.Machinery,
		Doc: `Show the terminals of a guest, and through whose hands goes what is typed there.

There is a line for every terminal in use: virtual consoles, serial lines, and both sides
of pseudo-terminals. What is typed goes through the receive function of the terminal's line
discipline (receive2 where there is one, else receive), and what is printed through the
write function of its driver: a hook on either sees passwords. Pseudo-terminals that no
process has open, and that control none, are not found. "open_by" looks at the descriptors
of processes, not at those of threads that do not share them.`,
		Columns: ttysColumns,
		Rows:    ttysRows,
		Of:      itsTerminals,
		Example: "lab:demo",
	}))
}

var ttysColumns = columns([]table.Column{
	{Name: "name", Type: table.Text, Doc: "Name below /dev; ptmN is the master side of pts/N."},
	{Name: "driver", Type: table.Text, Doc: "Its driver, as in /proc/tty/drivers; missing where the driver has no name."},
	{Name: "driver_module", Type: table.Text, Extra: true, Doc: "Module that says the driver is its own; missing where it is built in."},
	{Name: "index", Type: table.Int, Extra: true, Doc: "Which of its driver's terminals it is."},
	{Name: "device", Type: table.Text, Doc: "Device number, major:minor."},
	{Name: "session", Type: table.Int, Doc: "Process that leads the session that it controls; missing for none."},
	{Name: "pgrp", Type: table.Int, Doc: "Process group in the foreground; missing for none."},
	{Name: "opens", Type: table.Int, Extra: true, Doc: "How often it is open, as the kernel counts."},
	{Name: "open_by", Type: table.Numbers, Doc: "Processes that have it open; missing for none."},
	{Name: "rows", Type: table.Int, Extra: true, Doc: "Lines of its window; 0 where nobody said."},
	{Name: "columns", Type: table.Int, Extra: true, Doc: "Characters of a line of its window; 0 where nobody said."},
	{Name: "discipline", Type: table.Text, Doc: "Line discipline; missing while it is being changed."},
	{Name: "discipline_ops", Type: table.Addr, Extra: true, Doc: "Address of its struct tty_ldisc_ops."},
	{Name: "discipline_owner", Type: table.Text, Extra: true, Doc: "Whose memory that lies in: kernel or [module]; none is nobody's that is known."},
	{Name: "peer", Type: table.Addr, Extra: true, Doc: "Address of the other side of a pseudo-terminal."},
	{Name: "ops", Type: table.Addr, Extra: true, Doc: "Address of the driver's struct tty_operations."},
	{Name: "ops_owner", Type: table.Text, Extra: true, Doc: "Whose memory that lies in."},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct tty_struct."},
}, functionColumns("receive", "the discipline's receive_buf"), functionColumns("receive2", "the discipline's receive_buf2, which is called instead"),
	functionColumns("write", "the driver's function that writes to the terminal"))

func ttysRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return machineryOf(ctx, g, g.Linux.Terminals, ttyRow)
}

func ttyRow(o *linux.Owners, t *linux.Terminal) table.Row {
	process := func(pid int32) table.Value {
		if pid == 0 {
			return table.Missing(table.None)
		}
		return table.IntValue(int64(pid))
	}
	open := table.Missing(table.None)
	if len(t.OpenBy) > 0 {
		open = table.NumbersValue(t.OpenBy)
	}
	return append(table.Row{
		text(t.Name), text(t.Driver), text(t.DriverModule), table.IntValue(int64(t.Index)), table.TextValue(t.Device.String()),
		process(t.Session), process(t.Group), table.IntValue(t.Count), open, table.IntValue(int64(t.Rows)), table.IntValue(int64(t.Columns)),
		text(t.Discipline), address(t.DisciplineOps), holder(o, t.DisciplineOps), address(t.Peer), address(t.Ops), holder(o, t.Ops), address(t.Addr),
	}, functions(o, t.Receive, t.Receive2, t.Write)...)
}
