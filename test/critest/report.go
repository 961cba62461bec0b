package critest

import (
	"encoding/xml"
	"fmt"
	"os"
	"strings"
)

// report is the part of a JUnit report that is read here.
type report struct {
	Suites []struct {
		Cases []spec `xml:"testcase"`
	} `xml:"testsuite"`
}

// spec is one test of the suite.
type spec struct {
	Name    string   `xml:"name,attr"`
	Status  string   `xml:"status,attr"`
	Seconds float64  `xml:"time,attr"`
	Failure *failure `xml:"failure"`
	Error   *failure `xml:"error"`
}

type failure struct {
	Message string `xml:"message,attr"`
	Detail  string `xml:",chardata"`
}

// readReport returns the specs of a JUnit report that ran, and leaves out what stands around them.
func readReport(path string) ([]spec, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	var parsed report
	if err := xml.Unmarshal(text, &parsed); err != nil {
		return nil, fmt.Errorf("parse report %s: %w", path, err)
	}
	var specs []spec
	for _, suite := range parsed.Suites {
		for _, one := range suite.Cases {
			if len(one.Name) > 4 && one.Name[:4] == "[It]" && one.Status != "skipped" && one.Status != "pending" {
				specs = append(specs, one)
			}
		}
	}
	return specs, nil
}

// passed tells whether the spec succeeded.
func (s spec) passed() bool { return s.Failure == nil && s.Error == nil }

// reason is why it did not.
func (s spec) reason() string {
	for _, f := range []*failure{s.Failure, s.Error} {
		if f != nil {
			return strings.TrimSpace(f.Message + "\n" + f.Detail)
		}
	}
	return ""
}
