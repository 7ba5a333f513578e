package tcg

import (
	"fmt"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/virt"
)

// A terminal is followed where each byte passes exactly once. What is shown is taken where the line discipline hands it to the
// driver, behind its output processing (OPOST) and with its echo: the bytes that a screen, or who has the
// master of a pseudo-terminal, gets. What is typed is taken where the line discipline receives it, before it is
// edited and translated. So a session of tmux or SSH is not recorded twice, and what TIOCSTI types is seen, too.

// terminalFunction is a function of the kernel through which bytes of terminals go. Its first argument is the tty_struct.
type terminalFunction struct {
	name  string
	input bool // the buffer is followed by one of flags, and then its length
	char  bool // the second argument is a byte, not a buffer
	whole bool // it takes all that it is given; else its result says how much
}

var terminalFunctions = []terminalFunction{
	{name: "pty_write"}, // of both sides: what the master writes is input, and seen where it arrives
	{name: "con_write", whole: true},
	{name: "con_put_char", char: true, whole: true},
	{name: "uart_write"},
	{name: "uart_put_char", char: true},
	{name: "hvc_write"},
	{name: "n_tty_receive_buf2", input: true},
	{name: "n_tty_receive_buf", input: true, whole: true},
}

// Marks of records of terminals. Those of a function follow one another.
const (
	idTerminal       = 100 // the function begins
	idTerminalReturn = 130
	idTerminalResize = 160
	idTerminalClose  = 161
)

// Words of a record of a terminal, behind those of each probe (probeWords).
const (
	wordTTY = probeWords + iota
	wordCount
	wordWindow  // its struct winsize
	wordLocal   // c_lflag of its termios
	wordSession // its session, a struct pid *
	wordChar
	terminalWords
)

// What pseudo-terminals are (include/linux/tty_driver.h).
const (
	driverTypePTY = 4
	subtypeMaster = 1
)

// Flags of termios.c_lflag (include/uapi/asm-generic/termbits.h).
const (
	flagCanonical = 0x2
	flagEcho      = 0x8
)

type terminalLayout struct {
	driver, winsize, local, session uint32 // in tty_struct
	kind, subtype                   uint32 // in tty_driver
}

// terminalsAt is where programs find what they need of terminals.
type terminalsAt struct {
	terminalLayout
	entries []virt.Addr // of terminalFunctions; 0: this kernel has it not
	returns [][]virt.Addr
	resize  []virt.Addr
	close   virt.Addr
}

func terminalsOf(l *guest.Look) (t *terminalsAt, err error) {
	s := l.Linux
	o, err := kobj.LayoutOf(s.Walker, "terminal sessions", func(r *kobj.Resolver, o *terminalLayout) {
		const t = "tty_struct"
		o.driver, o.winsize, o.local = r.Offset(t, "driver"), r.Offset(t, "winsize"), r.Offset(t, "termios.c_lflag")
		o.session = r.Offset(t, "ctrl.session", "session") // 5.16
		o.kind, o.subtype = r.Offset("tty_driver", "type"), r.Offset("tty_driver", "subtype")
	})
	if err != nil {
		return nil, err
	}
	owners, err := s.Owners()
	if err != nil {
		return nil, fmt.Errorf("terminal sessions: %w", err)
	}
	t = &terminalsAt{terminalLayout: *o}
	for _, f := range terminalFunctions {
		at, _ := s.Address(f.name)
		t.entries = append(t.entries, at)
		var back []virt.Addr
		if !f.whole && at != 0 {
			back = leavesOf(s, owners, f.name)
		}
		t.returns = append(t.returns, back)
	}
	for _, need := range []int{0, 6} {
		if t.entries[need] == 0 {
			return nil, fmt.Errorf("terminal sessions: %w", s.NoSymbol(terminalFunctions[need].name))
		}
	}
	for _, name := range []string{"pty_resize", "tty_do_resize"} {
		if at, ok := s.Address(name); ok {
			t.resize = append(t.resize, at)
		}
	}
	// A pair of pseudo-terminals ends when both sides are closed, with a call for one of them.
	if t.close, _ = s.Address("tty_ldisc_release"); t.close == 0 {
		return nil, fmt.Errorf("terminal sessions: %w", s.NoSymbol("tty_ldisc_release"))
	}
	return t, nil
}

const (
	sTTY     = sArgs
	sCount   = sArgs + 1
	sWindow  = sArgs + 2
	sLocal   = sArgs + 3
	sSession = sArgs + 4
	sChar    = sArgs + 5
)

// terminals writes the programs of terminals.
func (c *compiler) terminals(t *terminalsAt) {
	for i, f := range terminalFunctions {
		if t.entries[i] == 0 {
			continue
		}
		c.at([]virt.Addr{t.entries[i]}, idTerminal+i)
		c.tty(t, true)
		switch {
		case f.char:
			c.Imm(sCount, 1)
			c.Reg(sChar, "rsi")
		case f.input:
			c.Reg(sCount, "rcx")
		default:
			c.Reg(sCount, "rdx")
		}
		c.And(sCount, sCount, 0xffffffff) // int up to 6.5
		c.terminalRecord()
		if !f.char {
			c.Reg(sX, "rsi")
			c.Copy(0, sX, sCount, maxItem)
		}
		c.End()
		if len(t.returns[i]) > 0 {
			c.at(t.returns[i], idTerminalReturn+i)
			c.Reg(sCount, "rax")
			c.terminalRecord()
			c.End()
		}
	}
	if len(t.resize) > 0 {
		c.at(t.resize, idTerminalResize)
		c.tty(t, false)
		c.Reg(sX, "rsi")
		c.Load(sWindow, sX, 0, 8, 0) // the new one
		c.terminalRecord()
		c.End()
	}
	c.at([]virt.Addr{t.close}, idTerminalClose)
	c.Reg(sTTY, "rdi")
	c.terminalRecord()
	c.End()
}

// at begins a program at functions of the kernel's.
func (c *compiler) at(places []virt.Addr, id int) {
	for i, at := range places {
		p := plugin.Probe{Where: plugin.AtAddress, Address: uint64(at), ID: uint16(id)}
		if i > 0 {
			c.Also(p)
		} else {
			c.Probe(p)
		}
	}
}

// tty reads what is asked of the terminal in RDI. One side of a pseudo-terminal is enough, and what is neither such nor
// controls a session is a line to a device.
func (c *compiler) tty(t *terminalsAt, side bool) {
	pty, ok, drop := c.Label(), c.Label(), c.Label()
	c.Reg(sTTY, "rdi")
	c.Load(sSession, sTTY, int64(t.session), 8, 0)
	c.Load(sX, sTTY, int64(t.driver), 8, drop)
	c.Load(sY, sX, int64(t.kind), 2, drop)
	c.If(sY, "==", driverTypePTY, pty)
	c.If(sSession, "!=", 0, ok)
	c.Jump(drop)
	c.Set(pty)
	if !side {
		c.Jump(ok)
	}
	c.Load(sY, sX, int64(t.subtype), 2, drop)
	c.If(sY, "!=", subtypeMaster, ok)
	c.Set(drop)
	c.Drop()
	c.Set(ok)
	c.Load(sWindow, sTTY, int64(t.winsize), 8, 0)
	c.Load(sLocal, sTTY, int64(t.local), 4, 0)
}

// terminalRecord puts the words of a record of a terminal.
func (c *compiler) terminalRecord() {
	c.current()
	for _, s := range []plugin.Slot{sTTY, sCount, sWindow, sLocal, sSession, sChar} {
		c.Put(s)
	}
}

// current puts the words that each probe's record begins with, in the kernel: the task that runs, whoever it is.
func (c *compiler) current() {
	unknown := c.Label()
	c.Reg(sGS, "gs_base")
	c.Load(sTask, sGS, int64(c.o.current), 8, unknown)
	c.Load(sX, sTask, int64(c.o.pid), 4, unknown)
	c.Load(sIDs, sTask, int64(c.o.tgid), 4, unknown)
	c.Shl(sIDs, sIDs, 32)
	c.AddSlot(sIDs, sX)
	c.Load(sBorn, sTask, int64(c.o.started), 8, unknown)
	c.Set(unknown)
	c.Ctx(sPC, plugin.CtxPC)
	for _, s := range []plugin.Slot{sTask, sIDs, sPC, sBorn} {
		c.Put(s)
	}
}
