package views

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux/device"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "consoles", Group: table.Kernel,
		Doc: `Show the text on the virtual consoles of a guest, line by line.

Each of /dev/tty1 and so on that was ever opened keeps its text in memory, whether the
screen shows it or not. Blank lines are left out. The text that a card in VGA's text mode
shows just now is in the card's own memory and cannot be read, nor what a program draws:
QEMU's screendump has both. What is said on a serial line is kept nowhere.`,
		Source:  "vc_cons: vc_data.vc_screenbuf of every virtual console",
		Key:     []string{"console", "line"},
		Example: "lab:demo --where 'shown'",
	}, consolesColumns, from(of(device.ConsoleLines))))
}

var consolesColumns = table.Columns[device.ConsoleLine]{
	{
		Name: "console", Type: table.Text, Doc: "tty1, tty2 …",
		Get: func(l *device.ConsoleLine) table.Value { return table.TextValue(fmt.Sprintf("tty%d", l.Console)) },
	},
	{Name: "line", Type: table.Int, Doc: "Line, from 1 at the top.", Get: func(l *device.ConsoleLine) table.Value { return integer(l.Line) }},
	{
		Name: "text", Type: table.Text, Doc: "What stands there, without blanks at its end.",
		Get: func(l *device.ConsoleLine) table.Value { return table.TextValue(l.Text) },
	},
	{
		Name: "shown", Type: table.Bool, Extra: true, Doc: "The screen shows this console.",
		Get: func(l *device.ConsoleLine) table.Value { return table.BoolValue(l.Shown) },
	},
	{
		Name: "graphics", Type: table.Bool, Extra: true, Doc: "A program draws on the screen while this console is shown; the text is what was there before.",
		Get: func(l *device.ConsoleLine) table.Value { return table.BoolValue(l.Graphics) },
	},
	{
		Name: "address", Type: table.Addr, Extra: true, Doc: "Address of its first character.",
		Get: func(l *device.ConsoleLine) table.Value { return address(l.Addr) },
	},
}
