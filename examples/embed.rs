// embed FOLDER < IDS: embed.c in Rust, without a crate.
//
// Structs and functions of modernbert.h as far as they are used, in its order; fields that are left zero
// mean the default.
use std::ffi::{CStr, CString};
use std::io::BufRead;
use std::os::raw::{c_char, c_int, c_void};
use std::ptr::{null, null_mut};

#[repr(C)]
struct Facts {
    struct_size: usize,
    sizes: [i64; 6], // vocab, hidden, inter, heads, layers, types
    tier: *const c_char,
    dtype: *const c_char,
    threads: c_int,
    packed_bytes: u64,
    modules: i64,
    width: i64,
    scores: c_int,
    labels: i64,
    pack: *const c_char,
    certificate: c_int,
}

#[repr(C)]
struct Input {
    struct_size: usize,
    sequences: i64,
    cu_seqlens: *const i64,
    ids: *const i64,
    embeddings: *const f32,
    token_types: *const i64,
    positions: *const i64,
    visible: *const u8,
}

#[repr(C)]
struct Embedding {
    struct_size: usize,
    width: i64,
    normalize: c_int,
    prompt_tokens: i64,
}

extern "C" {
    fn modernbert_last_error() -> *const c_char;
    fn modernbert_open(folder: *const c_char, options: *const c_void, model: *mut *mut c_void) -> c_int;
    fn modernbert_model_facts(model: *const c_void, facts: *mut Facts) -> c_int;
    fn modernbert_embed(
        model: *const c_void, input: *const Input, embedding: *const Embedding, run: *const c_void,
        out: *mut f32, out_count: usize,
    ) -> c_int;
    fn modernbert_close(model: *mut c_void);
}

fn check(status: c_int) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    Err(unsafe { CStr::from_ptr(modernbert_last_error()) }.to_string_lossy().into_owned())
}

struct Model(*mut c_void);

impl Model {
    fn open(folder: &str) -> Result<Model, String> {
        let folder = CString::new(folder).map_err(|e| e.to_string())?;
        let mut model = null_mut();
        check(unsafe { modernbert_open(folder.as_ptr(), null(), &mut model) })?;
        Ok(Model(model))
    }

    /// Vectors of length 1, one after the other, and their width.
    fn embed(&self, texts: &[Vec<i64>]) -> Result<(Vec<f32>, usize), String> {
        let mut facts: Facts = unsafe { std::mem::zeroed() };
        facts.struct_size = std::mem::size_of::<Facts>();
        check(unsafe { modernbert_model_facts(self.0, &mut facts) })?;
        let ids: Vec<i64> = texts.concat();
        let mut cu_seqlens = vec![0];
        for text in texts {
            cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + text.len() as i64);
        }
        let input = Input {
            struct_size: std::mem::size_of::<Input>(), sequences: texts.len() as i64,
            cu_seqlens: cu_seqlens.as_ptr(), ids: ids.as_ptr(), embeddings: null(),
            token_types: null(), positions: null(), visible: null(),
        };
        let unit = Embedding {
            struct_size: std::mem::size_of::<Embedding>(), width: 0, normalize: 1, prompt_tokens: 0,
        };
        let mut vectors = vec![0f32; texts.len() * facts.width as usize];
        check(unsafe {
            modernbert_embed(self.0, &input, &unit, null(), vectors.as_mut_ptr(), vectors.len())
        })?;
        Ok((vectors, facts.width as usize))
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        unsafe { modernbert_close(self.0) }
    }
}

fn run() -> Result<(), String> {
    let folder = std::env::args().nth(1).ok_or("usage: embed FOLDER < IDS")?;
    let model = Model::open(&folder)?;
    let mut texts = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let ids: Result<Vec<i64>, _> = line.split_whitespace().map(str::parse).collect();
        texts.push(ids.map_err(|e| e.to_string())?);
    }
    let (vectors, width) = model.embed(&texts)?;
    for vector in vectors.chunks(width) {
        let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
        println!("{}", numbers.join(" "));
    }
    Ok(())
}

fn main() {
    if let Err(message) = run() {
        eprintln!("embed: {message}");
        std::process::exit(1);
    }
}
