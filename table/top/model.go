package top

import (
	"slices"

	"github.com/outsight-vmi/outsight/table/text"
)

// model is the state of the screen. What the keys do to it and how it is drawn are
// pure functions; screen.go connects it with a terminal.
type model struct {
	options       Options
	width, height int
	before, now   *Sample
	lines         []Line

	selected Key
	row      int // of the selected line
	top      int // first line that is seen
	typing   bool
	view     string // of the detail that is shown; empty: the processes
	of       Line   // whose
	detail   []string
	scroll   int // of the detail
}

// action is what a key asks for beyond the model.
type action int

const (
	nothing action = iota
	quit
	ask // for the detail
)

// views are what there is about one process, by key.
var views = map[string]string{"f": "files", "s": "sockets", "a": "maps"}

const (
	footer       = "q quit  f files  s sockets  a maps  / filter  T tree  by: c cpu  m memory  p pid  n name  t time  r reverse"
	typingFooter = "type to filter; Enter keeps it, Esc clears it"
	detailFooter = "q quit  Esc back  f files  s sockets  a maps"
)

// sampled takes a new sample.
func (m *model) sampled(s *Sample) {
	m.before, m.now = m.now, s
	m.arrange()
}

// arrange makes the lines again and keeps the selected process selected.
func (m *model) arrange() {
	if m.now == nil {
		return
	}
	m.lines = Frame(m.before, m.now, m.options)
	if i := slices.IndexFunc(m.lines, func(l Line) bool { return l.Key == m.selected }); i >= 0 && m.row > 0 {
		m.row = i // the first place stays the first place, whoever is there
	}
	m.move(0)
}

// room is how many processes, or lines of a detail, there is room for.
func (m *model) room() int {
	if m.view != "" {
		return max(1, m.height-2)
	}
	return max(1, m.height-5) // header, column names, footer
}

// move selects the line that is by further.
func (m *model) move(by int) {
	m.row = max(0, min(m.row+by, len(m.lines)-1))
	m.top = max(0, min(m.top, len(m.lines)-m.room()))
	m.top = min(max(m.top, m.row-m.room()+1), m.row)
	if m.row < len(m.lines) {
		m.selected = m.lines[m.row].Key
	}
}

// key is what a key does. name is as bubbletea gives it, typed the text it stands for.
func (m *model) key(name, typed string) action {
	switch {
	case name == "ctrl+c":
		return quit
	case m.typing:
		m.edit(name, typed)
		return nothing
	case name == "q":
		return quit
	case name == "esc" && m.view != "":
		m.view, m.detail = "", nil
		m.move(0)
	case name == "esc":
		m.options.Filter = ""
		m.arrange()
	case views[name] != "":
		return m.open(views[name])
	case m.view != "":
		if by, ok := m.step(name); ok {
			m.scroll = max(0, min(m.scroll+by, len(m.detail)-m.room()))
		}
	default:
		m.arrangeBy(name)
	}
	return nothing
}

func (m *model) arrangeBy(name string) {
	switch name {
	case "c", "m", "p", "n", "t":
		m.options.Order = Order(name[0])
	case "r":
		m.options.Reverse = !m.options.Reverse
	case "T":
		m.options.Tree = !m.options.Tree
	case "/":
		m.typing = true
	default:
		if by, ok := m.step(name); ok {
			m.move(by)
		}
		return
	}
	m.arrange()
}

// step is by how many lines a key moves.
func (m *model) step(name string) (int, bool) {
	const far = 1 << 30
	by, ok := map[string]int{
		"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -m.room(), "pgdown": m.room(), "home": -far, "end": far,
	}[name]
	return by, ok
}

// edit changes the filter that is being typed.
func (m *model) edit(name, typed string) {
	switch name {
	case "enter":
		m.typing = false
	case "esc":
		m.typing, m.options.Filter = false, ""
	case "backspace":
		if r := []rune(m.options.Filter); len(r) > 0 {
			m.options.Filter = string(r[:len(r)-1])
		}
	default:
		m.options.Filter += typed
	}
	m.arrange()
}

func (m *model) open(view string) action {
	if m.view == "" {
		if m.row >= len(m.lines) {
			return nothing
		}
		m.of = m.lines[m.row]
	}
	m.view, m.detail, m.scroll = view, []string{"reading…"}, 0
	return ask
}

// Switches of the terminal's; the only escape sequences that are drawn.
const (
	reverse = "\x1b[7m"
	plain   = "\x1b[0m"
)

// draw is the lines of the screen.
func (m *model) draw() []string {
	fit := func(s string) string { return text.Cut(s, m.width) }
	bar := func(s string) string {
		s = fit(s)
		for n := text.Width(s); n < m.width; n++ {
			s += " "
		}
		return reverse + s + plain
	}
	var out []string
	switch {
	case m.now == nil:
		return []string{fit("looking into the guest…")}
	case m.view != "":
		out = append(out, bar(text.Visible(m.view+" of "+m.of.Comm)+" ("+m.of.number()+")"))
		end := min(len(m.detail), m.scroll+m.room())
		for _, s := range m.detail[min(m.scroll, end):end] {
			out = append(out, fit(s))
		}
	default:
		for _, s := range Header(m.now, m.options, len(m.lines)) {
			out = append(out, fit(s))
		}
		out = append(out, bar(columns))
		end := min(len(m.lines), m.top+m.room())
		for i := m.top; i < end; i++ {
			if i == m.row {
				out = append(out, bar(m.lines[i].String()))
				continue
			}
			out = append(out, fit(m.lines[i].String()))
		}
	}
	for len(out) < m.height-1 {
		out = append(out, "")
	}
	switch {
	case m.typing:
		return append(out, bar("/"+text.Visible(m.options.Filter)+"   "+typingFooter))
	case m.view != "":
		return append(out, bar(detailFooter))
	}
	return append(out, bar(footer))
}
