package cast_test

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/cast"
	"github.com/outsight-vmi/outsight/trace"
)

func ExampleRecorder() {
	folder, err := os.MkdirTemp("", "recordings")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(folder)
	var path string
	r, err := cast.NewRecorder(cast.Options{Folder: folder, Title: "web", Report: func(s *cast.Session) { path = s.Path }})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, t := range []trace.Terminal{
		{Action: trace.TerminalOutput, Data: []byte("$ ")},
		{Action: trace.TerminalInput, Data: []byte("id\r")},
		{Action: trace.TerminalClose},
	} {
		t.ID, t.Name = 1, "pts/0"
		if err := r.Event(&trace.Event{Kind: trace.KindTerminal, Time: time.Unix(1e9, 0), Terminal: &t}); err != nil {
			fmt.Println(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		fmt.Println(err)
	}
	for line := range strings.Lines(string(b)) {
		fmt.Println(strings.TrimRight(line, " \n"))
	}
	// Output:
	// {"version": 2, "width": 80, "height": 24, "timestamp": 1000000000, "title": "web pts/0"}
	// [0.000000, "o", "$ "]
	// [0.000000, "i", "id\r"]
}
