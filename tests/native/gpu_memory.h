// What weights and sessions take of a device, pretended on PoCL: weights that it reads where they are mapped, and too little memory.
#pragma once
#include <string>

// With prompts on one side and answers on the other, on a device that shares memory and on one with its own.
void test_two_backends(const std::string& path);
// PoCL only.
void test_shared_pages(const std::string& path);
void test_vendor_extensions(const std::string& path);
void test_small_device(const std::string& path);
void test_exhausted_device(const std::string& path);
