package top

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Run shows s on the terminal that in and out are, until the user quits or the
// guest ends.
func Run(ctx context.Context, s Source, in io.Reader, out io.Writer, o Options, interval time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sc := &screen{ctx: ctx, source: s, interval: interval, model: model{options: o, width: 80, height: 24}}
	// Signals end ctx; what is drawn changes a few times a second.
	_, err := tea.NewProgram(sc, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out), tea.WithoutSignalHandler(), tea.WithFPS(20)).Run()
	switch {
	case sc.err != nil:
		return sc.err
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && !errors.Is(err, tea.ErrProgramKilled):
		return fmt.Errorf("terminal: %w", err)
	}
	return nil
}

// screen is the model as bubbletea wants it.
type screen struct {
	model
	ctx      context.Context
	source   Source
	interval time.Duration
	err      error // that ended it
}

type (
	sampleMsg struct {
		sample *Sample
		err    error
	}
	detailMsg struct {
		view  string
		of    Key
		lines []string
	}
	tickMsg struct{}
)

func (s *screen) Init() tea.Cmd { return s.sample }

func (s *screen) sample() tea.Msg {
	out, err := s.source.Sample(s.ctx)
	return sampleMsg{out, err}
}

func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
		s.move(0)
	case sampleMsg:
		if msg.err != nil {
			s.err = msg.err
			return s, tea.Quit
		}
		s.sampled(msg.sample)
		if s.source.Live() {
			// The next look is an interval after this one began, if that is to come.
			wait := max(s.interval-time.Since(msg.sample.At), s.interval/2)
			return s, tea.Tick(wait, func(time.Time) tea.Msg { return tickMsg{} })
		}
	case tickMsg:
		return s, s.sample
	case detailMsg:
		if msg.view == s.view && msg.of == s.of.Key {
			s.detail = msg.lines
		}
	case tea.KeyPressMsg:
		switch s.key(msg.String(), msg.Text) {
		case quit:
			return s, tea.Quit
		case ask:
			view, of, width := s.view, s.of, s.width
			return s, func() tea.Msg {
				return detailMsg{view, of.Key, s.source.Detail(s.ctx, view, of.PID, width)}
			}
		}
	}
	return s, nil
}

func (s *screen) View() tea.View {
	return tea.View{Content: strings.Join(s.draw(), "\n"), AltScreen: true}
}

func (l Line) number() string { return strconv.Itoa(int(l.PID)) }
