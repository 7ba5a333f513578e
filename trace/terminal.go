package trace

// TerminalAction is what happened at a terminal.
type TerminalAction string

// The actions.
const (
	TerminalOutput TerminalAction = "output" // bytes went to the screen, as the screen got them
	TerminalInput  TerminalAction = "input"  // bytes came from the keyboard, as the line discipline got them
	TerminalResize TerminalAction = "resize"
	TerminalClose  TerminalAction = "close" // nobody has it open any more
)

// Terminal is what an event of [KindTerminal] says. It is reused as the event is.
type Terminal struct {
	ID            uint64 // of this terminal from its first event to its last: names are used again
	Name          string // "pts/3", "ttyS0"
	Action        TerminalAction
	Data          []byte // output or input
	Cut           bool   // there was more than Data has
	Columns, Rows int    // 0: unknown
	// Hidden is set for input that is not echoed while whole lines are read: a password, most likely.
	Hidden bool
	Leader *Leader // of the session that the terminal controls, as last seen; nil: none yet, or unknown
}

// Leader is the process that leads a terminal's session: a shell, or what was started in place of one.
type Leader struct {
	*Process
	Args []string // its command line
	Term string   // its variable TERM
	Exec string   // its variable SHELL
}
