/* A program with an LLVM of its own, at work before, between and after Lathe's. */
#include <lathe/c.h>

#include <stdio.h>
#include <string.h>

/* Of LLVM's C interface, which this program links in version 14. */
typedef struct LLVMOpaqueContext *LLVMContextRef;
typedef struct LLVMOpaqueModule *LLVMModuleRef;
LLVMContextRef LLVMContextCreate(void);
void LLVMContextDispose(LLVMContextRef context);
LLVMModuleRef LLVMModuleCreateWithNameInContext(const char *name, LLVMContextRef context);
void LLVMDisposeModule(LLVMModuleRef module);
char *LLVMPrintModuleToString(LLVMModuleRef module);
void LLVMDisposeMessage(char *message);

static int own_llvm_works(void) {
  LLVMContextRef context = LLVMContextCreate();
  LLVMModuleRef module = LLVMModuleCreateWithNameInContext("mine", context);
  char *text = LLVMPrintModuleToString(module);
  int works = strstr(text, "mine") != NULL;
  LLVMDisposeMessage(text);
  LLVMDisposeModule(module);
  LLVMContextDispose(context);
  return works;
}

int main(void) {
  lathe_error *error = NULL;
  lathe_model *model = NULL;
  lathe_network *network = NULL;
  lathe_request *request = NULL;
  if (!own_llvm_works()) return 1;
  if (lathe_model_load("lenet5", NULL, &model, &error) ||
      lathe_compile(model, NULL, &network, &error) ||
      lathe_request_create(network, 1, NULL, &request, &error)) {
    fprintf(stderr, "%s\n", lathe_error_text(error));
    return 2;
  }
  if (!own_llvm_works()) return 3;
  lathe_request_run(request);
  lathe_request_free(request);
  lathe_network_free(network);
  lathe_model_free(model);
  if (!own_llvm_works()) return 4;
  puts("both work");
  return 0;
}
