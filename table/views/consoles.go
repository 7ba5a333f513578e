package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "consoles", Group: table.Kernel,
		Doc: `Show the text on the virtual consoles of a guest, line by line.

Each of /dev/tty1 and so on that was ever opened keeps its text in memory, whether the
screen shows it or not. Blank lines are left out. The text that a card in VGA's text mode
shows just now is in the card's own memory and cannot be read, nor what a program draws:
QEMU's screendump has both. What is said on a serial line is kept nowhere.`,
		Columns: []table.Column{
			{Name: "console", Type: table.Text, Doc: "tty1, tty2 …"},
			{Name: "line", Type: table.Int, Doc: "Line, from 1 at the top."},
			{Name: "text", Type: table.Text, Doc: "What stands there, without blanks at its end."},
			{Name: "shown", Type: table.Bool, Extra: true, Doc: "The screen shows this console."},
			{Name: "graphics", Type: table.Bool, Extra: true, Doc: "A program draws on the screen while this console is shown; the text is what was there before."},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of its first character."},
		},
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return rowsOf(g.Linux.ConsoleLines(ctx), func(l *linux.ConsoleLine) table.Row {
				return table.Row{
					table.TextValue(fmt.Sprintf("tty%d", l.Console)), table.IntValue(int64(l.Line)), table.TextValue(l.Text),
					table.BoolValue(l.Shown), table.BoolValue(l.Graphics), address(l.Addr),
				}
			})
		},
		Example: "lab:demo --where 'shown'",
	}))
}
