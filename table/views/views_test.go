package views_test

import (
	"testing"

	"github.com/outsight-vmi/outsight/table"
)

func TestViewsAreWellFormed(t *testing.T) {
	views := table.All()
	if len(views) < 70 {
		t.Errorf("%d views", len(views))
	}
	for _, v := range views {
		if err := table.Validate(v); err != nil {
			t.Error(err)
		}
	}
}
