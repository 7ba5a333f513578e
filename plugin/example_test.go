package plugin_test

import (
	"fmt"

	"github.com/outsight-vmi/outsight/plugin"
)

func ExampleDefaultPath() {
	path, err := plugin.DefaultPath()
	fmt.Println(path != "", err)
	// Output: true <nil>
}
