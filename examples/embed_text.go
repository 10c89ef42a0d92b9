// embed_text FOLDER < TEXTS: embed_text.c in Go, through cgo.
//
// What C reads by a pointer within a struct stands in C's memory, as cgo asks for.
package main

/*
#include <stdlib.h>
#include "modernbert_text.h"
*/
import "C"

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"
)

func check(status C.int) {
	if status != 0 {
		fmt.Fprintln(os.Stderr, "embed_text:", C.GoString(C.modernbert_last_error()))
		os.Exit(1)
	}
}

// Vectors of length 1, one after the other, and the tokens that were cut off each text.
func embed(model *C.modernbert_model, texts []string, width int) ([]float32, []int64) {
	if len(texts) == 0 {
		return nil, nil
	}
	given := make([]C.modernbert_text, len(texts))
	for i, text := range texts {
		given[i].text, given[i].bytes = C.CString(text), C.size_t(len(text))
		defer C.free(unsafe.Pointer(given[i].text))
	}
	room := C.malloc(C.size_t(len(given)) * C.sizeof_modernbert_text)
	defer C.free(room)
	copy(unsafe.Slice((*C.modernbert_text)(room), len(given)), given)
	var unit C.modernbert_text_options
	unit.struct_size, unit.normalize = C.sizeof_modernbert_text_options, 1
	vectors, lost := make([]float32, len(texts)*width), make([]int64, len(texts))
	check(C.modernbert_embed_texts(model, (*C.modernbert_text)(room), C.size_t(len(texts)), &unit, nil,
		(*C.float)(&vectors[0]), C.size_t(len(vectors)), (*C.int64_t)(&lost[0])))
	return vectors, lost
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: embed_text FOLDER < TEXTS")
		os.Exit(2)
	}
	folder := C.CString(os.Args[1])
	defer C.free(unsafe.Pointer(folder))
	var model *C.modernbert_model
	check(C.modernbert_open_text(folder, nil, &model))
	defer C.modernbert_close(model)
	var facts C.modernbert_facts
	facts.struct_size = C.sizeof_modernbert_facts
	check(C.modernbert_model_facts(model, &facts))

	var texts []string
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<30)
	for lines.Scan() {
		texts = append(texts, lines.Text())
	}
	width := int(facts.width)
	vectors, lost := embed(model, texts, width)
	for i, tokens := range lost {
		if tokens > 0 {
			fmt.Fprintf(os.Stderr, "line %d: %d tokens were cut off\n", i+1, tokens)
		}
		var words []string
		for _, x := range vectors[i*width : (i+1)*width] {
			words = append(words, strconv.FormatFloat(float64(x), 'g', -1, 32))
		}
		fmt.Println(strings.Join(words, " "))
	}
}
